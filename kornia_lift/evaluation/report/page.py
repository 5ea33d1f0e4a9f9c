"""One self-contained HTML page: tables, curves, and pictures of matches in the manner of the paper's Fig. 5."""

from __future__ import annotations

import base64
import html
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from kornia_lift._extras import require
from kornia_lift._io import atomic_write
from kornia_lift.evaluation.candidates import Candidate
from kornia_lift.evaluation.comparison import open_features
from kornia_lift.evaluation.measures.correct import THRESHOLD
from kornia_lift.evaluation.measures.matching import nearest_neighbours
from kornia_lift.evaluation.report.blocks import to_html
from kornia_lift.evaluation.report.plots import plots, svg
from kornia_lift.evaluation.report.results import Results
from kornia_lift.evaluation.report.tables import one_measure, report
from kornia_lift.features import Features
from kornia_lift.scenes.scene import VISIBLE, Scene
from kornia_lift.viz import draw_matches

#: Features per image in the pictures, as in the paper's Fig. 5.
SHOWN_FEATURES = 500
#: Sigma drawn for features without scale, pixels.
_DEFAULT_SIGMA = 3.0

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 1180px; padding: 0 1rem; color: #222; }
table { border-collapse: collapse; margin: 1rem 0; font-size: 13px; display: block; overflow-x: auto; }
td, th { border-bottom: 1px solid #ddd; padding: .25rem .6rem; text-align: right; white-space: nowrap; }
td:first-child, th:first-child { text-align: left; }
figure { margin: 1rem 0; } figure img { max-width: 100%; } figcaption { font-size: 13px; color: #555; }
.plots { display: flex; flex-wrap: wrap; gap: 1rem; } .plots svg { width: 520px; max-width: 100%; height: auto; }
"""


def write_page(
    path: Path,
    results: Results,
    groups: Mapping[str, Sequence[Scene]],
    cache: Path,
    candidates: Sequence[Candidate],
) -> None:
    """Write the page.

    Args:
        path: HTML file.
        results: what to show.
        groups: the scenes by group, for the pictures.
        cache: folder of the extracted features.
        candidates: the features, to find them there.
    """
    names = [f.name for f in results.features]
    baseline = "opencv-sift" if "opencv-sift" in names else None
    body = [to_html(report(results, baseline=baseline)), '<h2>Curves</h2><div class="plots">']
    body += [svg(figure) for figure in plots(results).values()]
    body.append("</div><h2>Matches</h2>")
    body.append(
        f"<p>{SHOWN_FEATURES} features per image; nearest neighbours of the keypoints in the common view region, green "
        f"if within {THRESHOLD:g} px of the truth, red if not; circles of twice the keypoint's scale, at most 150 "
        "matches drawn. The pair is the one where the first feature has its median number of correct matches.</p>"
    )
    for group, scenes in groups.items():
        body += _group_pictures(results, group, scenes, cache, candidates)
    page = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f"<title>{html.escape(results.title)}</title><style>{_STYLE}</style></head><body>"
        + "\n".join(body)
        + "</body></html>\n"
    )
    with atomic_write(path) as temporary:
        Path(temporary).write_text(page, encoding="utf-8")


def match_picture(scene: Scene, pair: tuple[int, int], features: tuple[Features, Features]) -> tuple[Any, int, int]:
    """Two images side by side with correct matches green and wrong ones red.

    Args:
        scene: the scene.
        pair: the images.
        features: of both images.

    Returns:
        RGB picture (H, W, 3), the number of correct matches, the number of all.
    """
    first, second = features
    moved = scene.transfer(pair[0], pair[1], first.keypoints)
    common = np.flatnonzero(moved.status == VISIBLE)
    found = nearest_neighbours(first, second)
    partner = found.forward[common]
    error = np.hypot(*(moved.points[common] - second.keypoints[partner]).T)
    order = np.argsort(found.forward_distance[common], kind="stable")
    common, partner, right = common[order], partner[order], (error <= THRESHOLD)[order]
    lafs = _frames(first, common), _frames(second, partner)
    picture = draw_matches(scene.image(pair[0]), scene.image(pair[1]), lafs, correct=right, max_width=1160)
    return picture, int(right.sum()), len(right)


def _group_pictures(
    results: Results, group: str, scenes: Sequence[Scene], cache: Path, candidates: Sequence[Candidate]
) -> list[str]:
    rows = results.features[0].pairs.get(group, ()) if results.features else ()
    measure = one_measure(results, group)
    scored = sorted((p for p in rows if measure in p.values), key=lambda p: p.values[measure])
    if not scored:
        return []
    chosen = scored[len(scored) // 2]
    scene = next(s for s in scenes if s.name == chosen.scene)
    pair = scene.names.index(chosen.first), scene.names.index(chosen.second)
    parts = [f"<h3>{html.escape(f'{chosen.scene} {chosen.first}–{chosen.second}')}</h3>"]
    for entry in candidates:
        try:
            with open_features(entry, cache, results.options["num_features"]) as source:
                features = tuple(source.read(scene.name, scene.names[k]).top(SHOWN_FEATURES) for k in pair)
            picture, right, count = match_picture(scene, pair, (features[0], features[1]))
        except (ValueError, OSError) as error:  # no features of it, or an image that cannot be drawn
            parts.append(f"<p>{html.escape(entry.name)}: {html.escape(str(error))}</p>")
            continue
        share = (
            f"{right} of {count} correct ({right / count:.0%})" if count else "no keypoint in the common view region"
        )
        parts.append(
            f'<figure><img alt="matches of {html.escape(entry.name)}" src="{_data_url(picture)}">'
            f"<figcaption>{html.escape(entry.name)}: {share}</figcaption></figure>"
        )
    return parts


def _frames(features: Features, index: np.ndarray) -> Tensor:
    if features.scales is None:
        features = replace(features, scales=np.full(len(features), _DEFAULT_SIGMA))
    return features.lafs[index]


def _data_url(picture: Any) -> str:
    cv2 = require("cv2", extra="eval")
    done, encoded = cv2.imencode(".jpg", picture[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 85])
    if not done:
        raise RuntimeError("OpenCV could not encode the picture")
    return "data:image/jpeg;base64," + base64.b64encode(encoded.tobytes()).decode()
