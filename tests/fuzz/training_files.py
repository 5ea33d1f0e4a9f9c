"""What trainings and evaluations write, small, and what reading it must give."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from kornia_lift.evaluation.report.blocks import to_markdown
from kornia_lift.evaluation.report.results import FORMAT, Results
from kornia_lift.evaluation.report.sfm_report import SfmResults, sfm_report
from kornia_lift.evaluation.report.tables import report
from kornia_lift.evaluation.sfm import SfmScores
from kornia_lift.features import Features
from kornia_lift.reconstruction import match_pairs
from kornia_lift.scenes.patch_sets import BROWN_GRID, BROWN_PATCH
from kornia_lift.training.curves import _read, _series
from kornia_lift.training.data.prepare.provenance import check_record, keep_record
from kornia_lift.training.data.store import (
    Camera,
    Observations,
    Store,
    StoredImage,
    encode_jpeg,
    load_store,
    save_store,
)
from kornia_lift.training.held_out.referee import Verdict
from kornia_lift.training.held_out.verdicts import keep_verdicts, read_verdicts
from kornia_lift.training.initial import check_initial, keep_initial
from kornia_lift.training.loop.checkpoint import load_checkpoint, save_checkpoint
from kornia_lift.training.split_record import check_split, keep_split


def patch_file(path: Path) -> None:
    """Some patches."""
    np.savez_compressed(path, patches=np.zeros((3, 8, 8), np.uint8), point_ids=np.arange(3))


def brown(path: Path) -> None:
    """A PhotoTour folder."""
    path.with_name("info.txt").write_text("0 0\n0 0\n1 0\n")
    path.with_name("m50_100000_100000_0.txt").write_text("0 0 0 1 0 0 0\n0 0 0 2 1 0 0\n")
    Image.new("L", (BROWN_GRID * BROWN_PATCH,) * 2).save(path.with_name("patches0000.bmp"))


def a_store(path: Path) -> None:
    """A store of two images that show one location, with a camera each."""
    image = encode_jpeg(np.full((40, 50), 90, np.uint8))
    camera = Camera("PINHOLE", (50.0, 50.0, 25.0, 20.0), (50, 40), np.eye(3), np.zeros(3))
    images = tuple(StoredImage(f"s/{i}", "s", "sfm", image, camera) for i in range(2))
    table = Observations(np.array([0, 1]), np.zeros(2), np.full((2, 2), 20.0), np.ones(2), np.zeros(2))
    save_store(path, Store(images, table, Observations.none(), {"s": {"found": 1}}))


def read_store(path: Path) -> None:
    """Read everything in it."""
    store = load_store(path)
    for image in store.images:
        image.decode()
        if image.camera is not None:
            assert np.isfinite(image.camera.intrinsics).all()
    store.with_sift_frames()


def record(path: Path) -> None:
    """What something was made of."""
    keep_record(path.with_suffix(".npz"), {"source": "/x", "files": {"a.jpg": 3}, "options": {"seed": 0}})


def read_record(path: Path) -> None:
    """Compare with what it is made of now."""
    check_record(path.with_suffix(".npz"), {"source": "/x", "files": {"a.jpg": 3}, "options": {"seed": 0}})


def a_log(path: Path) -> None:
    """The log of a training."""
    rows = [
        {"step": s, "kind": kind, "loss": 0.5, "error": 0.2, "more": 1}
        for s in range(3)
        for kind in ("train", "validation")
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def read_a_log(path: Path) -> None:
    """Read it as the curves do."""
    entries = _read(path)
    for kind, key in (("train", "loss"), ("validation", "error")):
        _series(entries, kind, key)


def checkpoint(path: Path) -> None:
    """A checkpoint of one layer."""
    layer = torch.nn.Linear(3, 2)
    save_checkpoint(path, {"stage": "s", "config": {}, "step": 3, "network": layer.state_dict()})


def read_checkpoint(path: Path) -> None:
    """Read it."""
    assert load_checkpoint(path)["version"] == 1


def part_of_matches(path: Path) -> None:
    """Matches of a run that was stopped: exactly one file, whatever its name."""
    _match(path.parent)
    (part,) = path.parent.glob("*.npz")
    part.rename(path)


def read_part_of_matches(path: Path) -> None:
    """Go on from it; what is damaged is made again."""
    rows = _match(path.parent, path)
    assert all(row.shape[1] == 2 for row in rows)


def _match(folder: Path, part: Path | None = None) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    values = {n: Features(np.zeros((5, 2)), rng.normal(size=(5, 8)).astype(np.float32)) for n in ("a", "b", "c")}
    parts = folder / "parts"
    parts.mkdir(exist_ok=True)
    if part is not None:
        _match_name(folder, part)
    found = match_pairs(values.__getitem__, [("a", "b"), ("a", "c")], 1.0, parts=parts)
    if part is None:
        for file in parts.iterdir():
            file.rename(folder / file.name)
            (folder / "name").write_text(file.name)
    return list(found.values())


def _match_name(folder: Path, part: Path) -> None:
    part.replace(folder / "parts" / (folder / "name").read_text())


# --- what a run was begun with -------------------------------------------------------------------------------------

SIDES = (["s"], ["t"])


def initial(path: Path) -> None:
    """The weights that a run started from."""
    keep_initial(path.parent, "lift")


def read_initial(path: Path) -> None:
    """Check that it goes on from them."""
    check_initial(path.parent, "lift", begun=True)


def split(path: Path) -> None:
    """Which scenes a run was trained on, and which were held out."""
    keep_split(path.parent, "modern", SIDES)


def read_split(path: Path) -> None:
    """Check that they are the same now."""
    check_split(path.parent, "modern", SIDES)


def verdicts(path: Path) -> None:
    """What a referee decided on a stage."""
    keep_verdicts(path.parent, {"rank": Verdict((10.0, 12.0), (0.5, 0.6), False, True, 3)})


def read_kept(path: Path) -> None:
    """Read it, and what follows from it."""
    for verdict in read_verdicts(path.parent).values():
        assert verdict.accepted in (True, False)
        verdict.as_text()


# --- results -------------------------------------------------------------------------------------------------------


def results(path: Path) -> None:
    """Results of two features."""
    pair = {"scene": "s", "first": "a", "second": "b", "status": "ok", "reason": "", "angle_deg": 12.5,
            "values": {"matching_score": 0.5, "pose_error": None}}  # fmt: skip
    failed = {**pair, "second": "c", "status": "failed", "reason": "why", "values": {}}
    features = [{"name": n, "options": {"model": "x"}, "pairs": {"posed": [pair, failed]}} for n in ("one", "two")]
    provenance = {"time": "now", "versions": {"torch": "2"}}
    options = {"threshold": 3.0, "num_features": 10, "estimator_label": "none"}
    content = {"format": FORMAT, "title": "t", "options": options, "provenance": provenance, "features": features}
    path.write_text(json.dumps(content))


def read_results(path: Path) -> None:
    """Read them, write them as a report, and save them again."""
    found = Results.load(path)
    to_markdown(report(found, baseline="one"))
    found.save(path.with_name("again.json"))


def reconstructions(path: Path) -> None:
    """Reconstructions of two features."""
    scores = [SfmScores("s", 3, 3, 100, 2.5, 0.5, 0.1, known_intrinsics=known) for known in (True, False)]
    SfmResults({"one": scores, "two": scores}, {"num_features": 10}, {"time": "now"}).save(path)


def read_reconstructions(path: Path) -> None:
    """Read them and write them as a report."""
    to_markdown(sfm_report(SfmResults.load(path)))
