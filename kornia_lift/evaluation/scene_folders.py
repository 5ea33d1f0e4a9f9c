"""Find the scenes below a folder, whatever their layout."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ..data.calibrated_scenes import CalibratedScene
from ..data.homography_sequences import HomographySequence
from ..data.posed import PosedScene
from ..data.scene import Scene
from ..data.static_sequences import StaticSequence

POSED, HOMOGRAPHY, STATIC, CALIBRATED = "posed", "homography", "static", "calibrated"
_DEPTH = 3


def load_scenes(folders: Iterable[str | Path]) -> dict[str, list[Scene]]:
    """Load every posed scene and homography sequence in or below some folders (three levels deep).

    A folder with ``cameras.npz`` is a posed scene; one with an image ``1`` and files ``H_1_k`` is a homography
    sequence (Oxford, HPatches); one with ``test/image_color`` is a static camera (Webcam); one with ``*.camera`` files
    (Strecha as published), or with a COLMAP model in ``sparse`` beside ``images``, has cameras only, which measures
    poses.

    Args:
        folders: scene folders or folders of scenes.

    Returns:
        Scenes by group (``posed``, ``homography``, ``static``, ``calibrated``), sorted by path; no empty groups.

    Raises:
        FileNotFoundError: if a folder does not exist or holds no scene.
        ValueError: if two scenes of a group have the same name.
    """
    groups: dict[str, list[Scene]] = {}
    for folder in folders:
        root = Path(folder)
        if not root.is_dir():
            raise FileNotFoundError(f"{root} is not a folder.")
        found = list(_search(root, _DEPTH))
        if not found:
            raise FileNotFoundError(
                f"No scene in {root}: a posed scene has cameras.npz, images/ and depth/, a homography sequence has "
                "images 1..n and files H_1_k; see docs/evaluation.md for the other layouts."
            )
        for group, scene in found:
            scenes = groups.setdefault(group, [])
            if any(scene.name == other.name for other in scenes):
                raise ValueError(f"Two scenes are called {scene.name!r}; rename one of the folders.")
            scenes.append(scene)
    return groups


def _search(folder: Path, depth: int) -> Iterable[tuple[str, Scene]]:
    if (folder / "cameras.npz").is_file():
        yield POSED, PosedScene.load(folder)
    elif any(folder.glob("H_1_*")) or any(folder.glob("H1to*p")):
        yield HOMOGRAPHY, HomographySequence.load(folder)
    elif (folder / "test" / "image_color").is_dir():
        yield STATIC, StaticSequence.load(folder)
    elif (model := _colmap_model(folder)) is not None:
        yield CALIBRATED, CalibratedScene.from_colmap(model, folder / "images")
    elif any(folder.glob("*.camera")):
        yield CALIBRATED, CalibratedScene.from_strecha(folder)
    elif depth > 0:
        for child in sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith(".")):
            yield from _search(child, depth - 1)


def _colmap_model(folder: Path) -> Path | None:
    for model in (folder / "sparse", folder / "sparse" / "0"):
        if (model / "images.bin").is_file() and (folder / "images").is_dir():
            return model
    return None
