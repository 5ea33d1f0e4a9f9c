"""The script for the day on which there is a GPU runs on a CPU, in miniature: all its parts, and its result file."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

from kornia_lift.training.data.prepare.read import ReadOptions, read_source
from kornia_lift.training.data.prepare.sources import Source
from kornia_lift.training.data.store import Store, join_stores, load_store, save_store
from kornia_lift.training.folder_run import FOLDER_RECIPES
from tests.helpers.plane_store import plane_in_two_views
from tests.helpers.repository import ROOT, load_script
from tests.helpers.training import aligned_stack, do_not_match_single_images, picture, validate_on_few_pairs


@pytest.fixture
def gpu() -> ModuleType:
    pytest.importorskip("skimage")
    pytest.importorskip("safetensors")
    return load_script("benchmarks/gpu.py")


def write_images(folder: Path, flat: bool = False) -> Path:
    """Pictures with smooth parts, which the paper's recipe needs, or without any texture."""
    cv2 = pytest.importorskip("cv2")
    folder.mkdir(parents=True)
    for i in range(3):
        image = picture(i, 260)
        image[:110] = image[:110] // 16 + 100
        cv2.imwrite(str(folder / f"{i}.png"), image * (not flat))
    return folder


def every_kind(folder: Path) -> Store:
    """Single images, two stacks of exposures, and two scenes with cameras, of which one of each is held out."""
    cv2 = pytest.importorskip("cv2")
    options = ReadOptions(points_per_image=60)
    stores = [read_source(Source("single", "mine", write_images(folder / "mine")), options)]
    for number in range(2):
        stack = folder / f"stack{number}"
        stack.mkdir()
        for exposure in range(3):
            dots = aligned_stack(number, 3).images[exposure, 0].numpy() * (0.7 + 0.1 * exposure)
            cv2.imwrite(str(stack / f"{exposure}.png"), (255 * dots).clip(0, 255).astype("uint8"))
        stores.append(read_source(Source("exposures", f"illumination/{stack.name}", stack), options))
        wall = plane_in_two_views(seed=number)[0]
        named = tuple(replace(image, name=f"{number}{image.name}", scene=f"wall{number}") for image in wall.images)
        stores.append(replace(wall, images=named))
    return join_stores(stores)


def test_all_parts_run_in_miniature(
    gpu: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    do_not_match_single_images(monkeypatch)
    validate_on_few_pairs(monkeypatch)
    save_store(tmp_path / "data.npz", every_kind(tmp_path))
    out = tmp_path / "gpu.json"
    # an hour: nothing here waits for a clock, and a machine that does other work must not run out of minutes
    arguments = [
        "--device",
        "cpu",
        "--quick",
        "--minutes",
        "60",
        "--data",
        str(tmp_path / "data.npz"),
        "--out",
        str(out),
    ]
    assert gpu.main(arguments) == 0, capsys.readouterr().out
    record = json.loads(out.read_text())
    groups = record["tests"]["groups"]
    assert record["tests"]["returncode"] == 0 and all("tests collected" in group["tail"][-1] for group in groups)
    assert {row["method"] for row in record["speed"]["peer"]} == {"opencv-sift, CPU"}
    assert {row["model"] for row in record["speed"]["streams"]} == {"lift", "lift-plus"}
    assert all(row["images_per_s"] > 0 and row["keypoints_per_image"] > 0 for row in record["speed"]["streams"])
    assert all(row["seconds"] > 0 for row in record["speed"]["variants"])
    assert {(r["model"], r["batch"]) for r in record["speed"]["cases"]} == {
        (model, batch) for model in ("lift", "lift-plus") for batch in (1, 2)
    }
    assert all(r["images_per_s"] > 0 and r["keypoints"] > 0 for r in record["speed"]["cases"])
    assert {r["stage"] for r in record["speed"]["stages"]["lift, float32"]["rows"]} >= {"orientation", "descriptor"}
    options = gpu.run_training.__globals__
    stages = {f"{name}/{stage}" for name, kind in options["RECIPES"].items() for stage in kind.STAGES}
    stages |= {f"{name}/{name}" for name in FOLDER_RECIPES}
    assert set(record["training"]) == stages
    for name, row in record["training"].items():
        assert row.get("samples_per_s", 0) > 0 and row["steps"] >= 1, (name, row)
    text = out.with_suffix(".md").read_text()
    assert text.count("| modern/") == 5 and "lift-plus" in text and "failed" not in text


def test_what_fails_is_written_down_and_the_rest_goes_on(gpu: ModuleType, tmp_path: Path) -> None:
    out = tmp_path / "gpu.json"
    monkey = pytest.MonkeyPatch()
    monkey.setattr(gpu, "run_tests", lambda quick, seconds: {"returncode": 0, "tail": ["1 passed"]})
    monkey.setattr(gpu, "run_speed", lambda device, quick, deadline, write: 1 / 0)
    with monkey.context():
        assert gpu.main(["--device", "cpu", "--quick", "--data", str(tmp_path / "none.npz"), "--out", str(out)]) == 1
    record = json.loads(out.read_text())
    assert "ZeroDivisionError" in record["speed"]["traceback"] and "no training data" in record["training"]["error"]
    assert "## speed failed" in out.with_suffix(".md").read_text()
    monkey.undo()


def test_the_data_fit_one_file(gpu: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_images(tmp_path / "data" / "photos")
    whole = gpu.pack(tmp_path / "data", tmp_path / "gpu.npz")
    assert load_store(tmp_path / "gpu.npz").names == whole.names and len(whole.names) == 3
    # of every kind something to train on and to hold out, whatever comes first
    source = [Source(kind, name, tmp_path / "data" / "photos") for kind, name in (
        *(("sfm", f"sfm/s{n}") for n in range(4)), ("sfm", "sfm/reichstag"), ("exposures", "illumination/a"),
        ("exposures", "illumination/living_room1"), ("single", "photos"), ("posed", "posed/castle"))]  # fmt: skip
    order = [s.name for s in gpu.pack.__globals__["order_of"](source)]
    assert order[:5] == ["sfm/reichstag", "sfm/s0", "illumination/living_room1", "illumination/a", "photos"]
    assert set(order[5:]) == {"sfm/s1", "sfm/s2", "sfm/s3"}
    with pytest.raises(ValueError, match="of at most 1000 bytes"):
        gpu.pack(tmp_path / "data", tmp_path / "small.npz", 1000)
    with pytest.raises(SystemExit):
        gpu.main(["--device", "cuda:99", "--data", str(tmp_path / "gpu.npz")])


def test_parts_without_data_and_git(gpu: ModuleType, tmp_path: Path) -> None:
    out, monkey = tmp_path / "gpu.json", pytest.MonkeyPatch()
    monkey.setattr(gpu, "run_tests", lambda quick, seconds: {"returncode": 0, "tail": ["1 passed"]})
    monkey.setattr(gpu, "run_speed", lambda device, quick, deadline, write: write({"cases": []}) or {"cases": []})
    with monkey.context():
        options = ["--device", "cpu", "--quick", "--parts", "tests,speed", "--commit", "1a2b3c4", "--out", str(out)]
        assert gpu.main(options) == 0
    monkey.undo()
    record = json.loads(out.read_text())
    assert record["about"]["commit"] == "1a2b3c4" and "training" not in record and record["speed"] == {"cases": []}
    with pytest.raises(SystemExit):
        gpu.main(["--device", "cpu", "--parts", "training", "--out", str(out)])
    with pytest.raises(SystemExit):
        gpu.main(["--device", "cpu", "--parts", "test,speed", "--out", str(out)])


def test_every_test_of_a_gpu_is_in_a_group(gpu: ModuleType) -> None:
    files = (ROOT / "tests").rglob("test_*.py")
    marked = {path.relative_to(ROOT).as_posix() for path in files if "mark.gpu" in path.read_text()}
    assert marked - {"tests/benchmarks/test_gpu_benchmark.py"} == {file for group in gpu.TESTS for file in group}
