"""The gallery of the documentation: matches of test pairs that go well and of those that go worst.

    python -m benchmarks.pages.gallery
    python -m benchmarks.pages.gallery --model lift

Nothing is picked by hand: of every test scene the pair in the middle and the pair at the end of the order by correct
matches in benchmarks/results/accuracy/accuracy.json. Each is matched as `kornia-lift match` does it. Writes
docs/images/gallery/*.jpg and shows them, with their figures, in docs/gallery.md.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from benchmarks.pages.marks import put_between
from kornia_lift import LIFTFeature, draw_matches, match_images
from kornia_lift._io import atomic_write
from kornia_lift.evaluation.measures.correct import THRESHOLD
from kornia_lift.evaluation.report.results import Results
from kornia_lift.matching import PairMatch
from kornia_lift.scenes.folders import HOMOGRAPHY, load_scenes
from kornia_lift.scenes.scene import UNKNOWN, VISIBLE, Scene

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs" / "gallery.md"
WIDTH, LINES, QUALITY = 760, 100, 72
SECTIONS = ("middle", "worst")
RIVALS = ("lift", "lift-plus", "opencv-sift", "aliked-n16")


@dataclass(frozen=True)
class Shown:
    """A pair, and the correct matches that the benchmark found in it, by feature."""

    group: str
    scene: str
    first: str
    second: str
    found: dict[str, int]


def main() -> int:
    args = _parse()
    scenes = {s.name: (group, s) for group, found in load_scenes([args.data]).items() for s in found}
    results = Results.load(args.results)
    feature = LIFTFeature(2000, pretrained=args.model)
    for section in args.sections:
        blocks = []
        for shown in chosen(results, args.model, section):
            group, scene = scenes[shown.scene]
            name = f"{section}_{shown.scene}.jpg"
            pair = scene.names.index(shown.first), scene.names.index(shown.second)
            images = [scene.image(k) for k in pair]
            geometry = "homography" if group == HOMOGRAPHY else "fundamental"
            match = match_images(*images, feature, geometry=geometry)
            known, correct = judged(scene, pair, match)
            first, second = (frames[torch.from_numpy(known)] for frames in match.lafs)
            picture = draw_matches(*images, (first, second), correct=correct[known], max_lines=LINES, max_width=WIDTH)
            with atomic_write(args.out / name) as temporary:
                Image.fromarray(picture).save(temporary, format="JPEG", quality=QUALITY, optimize=True)
            blocks.append(block(shown, name, match, known, correct))
            print(name, f"{(args.out / name).stat().st_size / 1000:.0f} kB", flush=True)
        put_between(DOCS, section, "\n\n".join([f"Matched by `{args.model}`:", *blocks]))
    return 0


def chosen(results: Results, model: str, section: str) -> list[Shown]:
    """The pair in the middle, or at the end, of each scene by the correct matches of the model."""
    by_name = {f.name: f for f in results.features}
    shown = []
    for group, pairs in by_name[model].pairs.items():
        for scene in dict.fromkeys(p.scene for p in pairs):
            ranked = sorted((p for p in pairs if p.scene == scene), key=lambda p: -p.values["correct_matches"])
            pair = ranked[len(ranked) // 2 if section == "middle" else -1]
            names = scene, pair.first, pair.second
            found = {
                name: int(p.values["correct_matches"])
                for name in RIVALS
                for p in by_name[name].pairs[group]
                if (p.scene, p.first, p.second) == names
            }
            shown.append(Shown(group, *names, found))
    return shown


def judged(scene: Scene, pair: tuple[int, int], match: PairMatch) -> tuple[np.ndarray, np.ndarray]:
    """Of each putative match, whether the truth knows it and whether it is correct, each (M,)."""
    here, there = match.points
    carried = scene.transfer(*pair, here)
    error = np.linalg.norm(np.nan_to_num(carried.points, nan=np.inf) - there, axis=1)
    return carried.status != UNKNOWN, (carried.status == VISIBLE) & (error <= THRESHOLD)


def block(shown: Shown, name: str, match: PairMatch, known: np.ndarray, correct: np.ndarray) -> str:
    """Picture and figures in Markdown."""
    of_known = f"{correct.sum()} of {known.sum()} putative matches correct"
    if match.overlap:
        verified = match.verified & known
        verdict = f"{match.verified.sum()} verified, {100 * correct[verified].mean():.0f} % of them correct"
    else:
        verdict = f'{match.verified.sum()} verified, "the images probably do not overlap"'
    rivals = ", ".join(f"{feature} {count}" for feature, count in shown.found.items())
    title = f"{shown.scene.replace('oxford_', 'Oxford ')}, images {shown.first} and {shown.second}"
    return (
        f"**{title}.** {of_known}; {verdict}. In the benchmark, correct matches of 1000 keypoints: {rivals}.\n\n"
        f"![{title}: putative matches, correct ones green, wrong ones red](images/gallery/{name})"
    )


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="lift-plus", help="shipped model (default: %(default)s)")
    parser.add_argument("--sections", nargs="+", choices=SECTIONS, default=SECTIONS)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data" / "test")
    results = Path(__file__).parents[1] / "results" / "accuracy" / "accuracy.json"
    parser.add_argument("--results", type=Path, default=results)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "images" / "gallery")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
