"""Find the scenes below a folder, whatever their layout."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from kornia_lift.scenes.calibrated import CalibratedScene
from kornia_lift.scenes.colmap import model_folder, sfm_root
from kornia_lift.scenes.dtu import DTUScan, is_dtu_scan
from kornia_lift.scenes.homographies import HomographySequence, has_homographies, has_numbered_images
from kornia_lift.scenes.megadepth import MegaDepthScene, is_dense_folder
from kornia_lift.scenes.posed import PosedScene
from kornia_lift.scenes.scene import Pair, Scene, SkippedPair, Transferred
from kornia_lift.scenes.static import StaticSequence

POSED, HOMOGRAPHY, STATIC, CALIBRATED = "posed", "homography", "static", "calibrated"
_DEPTH = 3


class UnreadableScene:
    """Stands for a scene whose description is damaged, so that it is reported beside the intact ones.

    It has one skipped pair, of images called ``*``, that stands for everything that cannot be evaluated.

    Args:
        name: name of the scene.
        reason: why it cannot be read.
    """

    names: tuple[str, ...] = ("*",)
    pairs: tuple[Pair, ...] = ()

    def __init__(self, name: str, reason: str) -> None:
        self.name = name
        self.reason = reason
        self.skipped: tuple[SkippedPair, ...] = (SkippedPair(0, 0, reason),)

    def image(self, index: int) -> Tensor:
        """Raise ValueError: there is no image."""
        raise ValueError(self.reason)

    def image_size(self, index: int) -> tuple[int, int]:
        """Raise ValueError: there is no image."""
        raise ValueError(self.reason)

    def transfer(self, i: int, j: int, points: NDArray[np.floating] | Tensor) -> Transferred:
        """Raise ValueError: there is no ground truth."""
        raise ValueError(self.reason)


class _Found(NamedTuple):
    group: str
    scene: Scene
    #: It looks like a scene without its ground truth; only worth reporting beside real scenes.
    guess: bool = False


def load_scenes(folders: Iterable[str | Path]) -> dict[str, list[Scene]]:
    """Load every posed scene and homography sequence in or below some folders (three levels deep).

    A folder with ``cameras.npz`` is a posed scene; one with an image ``1`` and files ``H_1_k`` is a homography
    sequence (Oxford, HPatches); one with ``test/image_color`` is a static camera (Webcam); one with images
    ``rect_001_3_r5000.png`` is a scan of DTU, posed too, and so is ``dense0`` of a scene of MegaDepth; one with
    ``*.camera`` files (Strecha as published), or with a COLMAP model in ``sparse`` beside ``images``, has cameras only,
    which measures poses.

    Beside intact scenes, one that is damaged or lacks its ground truth is listed as an :class:`UnreadableScene` or
    with skipped pairs only, so that it is reported.

    Args:
        folders: scene folders or folders of scenes.

    Returns:
        Scenes by group (``posed``, ``homography``, ``static``, ``calibrated``), sorted by path; no empty groups.

    Raises:
        FileNotFoundError: if a folder does not exist or holds no scene.
        ValueError: if two scenes have the same name, or every scene is damaged.
    """
    found: list[_Found] = []
    for folder in folders:
        root = Path(folder)
        if not root.is_dir():
            raise FileNotFoundError(f"{root} is not a folder")
        here = _search(root, _DEPTH)
        if all(entry.guess for entry in here):
            raise FileNotFoundError(
                f"no scene in {root}: a posed scene has cameras.npz, images/ and depth/, a homography sequence has "
                "images 1..n and files H_1_k; see docs/evaluation.md for the other layouts"
            )
        found += here
    broken = [entry.scene.reason for entry in found if isinstance(entry.scene, UnreadableScene)]
    if broken and len(broken) == len([entry for entry in found if not entry.guess]):
        raise ValueError("; ".join(broken))
    groups: dict[str, list[Scene]] = {}
    names: set[str] = set()
    for entry in found:
        if entry.scene.name in names and not entry.guess:
            raise ValueError(f"two scenes are called {entry.scene.name!r}; rename one of the folders")
        if not entry.guess:
            names.add(entry.scene.name)
        groups.setdefault(entry.group, []).append(entry.scene)
    return groups


def is_posed(folder: Path) -> bool:
    """Whether a folder has images with cameras and depth: ``cameras.npz``, a scan of DTU, ``dense0`` of MegaDepth."""
    return (folder / "cameras.npz").is_file() or is_dtu_scan(folder) or is_dense_folder(folder)


def load_posed(folder: Path) -> PosedScene:
    """Load a scene with depth maps; see the readers for what else they raise.

    Raises:
        ValueError: if :func:`is_posed` does not hold.

    """
    if not is_posed(folder):
        what = "holds no scene with depth maps" if folder.is_dir() else "is not a folder"
        raise ValueError(
            f"{folder} {what}, expected cameras.npz, images/ and depth/, a MegaDepth folder dense0, or a scan of DTU"
        )
    if (folder / "cameras.npz").is_file():
        return PosedScene.load(folder)
    return MegaDepthScene.load(folder) if is_dense_folder(folder) else DTUScan.load(folder)


def _search(folder: Path, depth: int) -> list[_Found]:
    here = _scene(folder)
    if here is not None:
        return [here]
    children = sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith(".")) if depth > 0 else []
    below = [entry for child in children for entry in _search(child, depth - 1)]
    if all(entry.guess for entry in below):
        remains = _remains(folder)
        return below if remains is None else [remains]
    return below


def _scene(folder: Path) -> _Found | None:
    """Load the folder if it is a scene."""
    if is_posed(folder):
        return _load(POSED, folder, load_posed)
    if has_homographies(folder):
        return _load(HOMOGRAPHY, folder, HomographySequence.load)
    if (folder / "test" / "image_color").is_dir():
        return _load(STATIC, folder, StaticSequence.load)
    if (root := sfm_root(folder)) is not None:
        return _load(
            CALIBRATED,
            folder,
            lambda f: CalibratedScene.from_colmap(model_folder(root), root / "images", name=f.resolve().name),
        )
    if any(folder.glob("*.camera")):
        return _load(CALIBRATED, folder, CalibratedScene.from_strecha)
    return None


def _load(group: str, folder: Path, load: Callable[[Path], Scene]) -> _Found:
    try:
        return _Found(group, load(folder))
    except (ValueError, OSError) as error:
        return _Found(group, UnreadableScene(folder.resolve().name, str(error)))


def _remains(folder: Path) -> _Found | None:
    """Return what looks like a scene whose ground truth is missing."""
    if (folder / "images").is_dir() and (folder / "depth").is_dir():
        lost = UnreadableScene(folder.resolve().name, f"{folder / 'cameras.npz'} is missing")
        return _Found(POSED, lost, guess=True)
    if has_numbered_images(folder):
        return _Found(HOMOGRAPHY, HomographySequence.load(folder), guess=True)
    return None
