"""Find the sources of training images below a folder: scenes, exposures, single images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kornia_lift.scenes.colmap import sfm_root
from kornia_lift.scenes.dtu import is_dtu_scan
from kornia_lift.scenes.folders import is_posed
from kornia_lift.scenes.homographies import has_homographies
from kornia_lift.scenes.megadepth import dense_folders, dense_name, is_dense_folder
from kornia_lift.training.data.images import images_below, images_in
from kornia_lift.training.data.split import SplitConfig, split_names
from kornia_lift.training.data.store import Kind

#: Folders of a data set that is sorted by kind.
LAYOUT = ("sfm", "photos", "illumination", "posed")


@dataclass(frozen=True)
class Source:
    """Something that is read as a whole.

    Args:
        kind: what it is.
        name: name of the scene, or in front of the names of single images; unique in a data set.
        path: its folder.

    """

    kind: Kind
    name: str
    path: Path

    @property
    def files(self) -> list[Path]:
        """The files that are read."""
        if self.kind in ("single", "exposures"):
            return images_in(self.path)
        if self.kind == "homography" or (self.kind == "posed" and is_dtu_scan(self.path)):
            return sorted(p for p in self.path.iterdir() if p.is_file() and not p.name.startswith("."))
        if self.kind == "posed" and is_dense_folder(self.path):
            return sorted(p for part in ("imgs", "depths") for p in (self.path / part).iterdir() if p.is_file())
        parts = ("images", "sparse") if self.kind == "sfm" else ("images", "depth", "pairs.txt", "cameras.npz")
        root = (sfm_root(self.path) or self.path) if self.kind == "sfm" else self.path
        below = [p for name in parts for p in (root / name, *(root / name).rglob("*"))]
        return sorted(p for p in below if p.is_file())


def scene_kind(folder: Path) -> Kind | None:
    """Return what kind of scene a folder is by its layout, None if it is not one."""
    if is_posed(folder):
        return "posed"
    if sfm_root(folder) is not None:
        return "sfm"
    if has_homographies(folder):
        return "homography"
    return None


#: What the recipes need that read folders instead of stores.
_NEEDED = {
    "sfm": "reconstructed scenes, folders with images/ and a COLMAP model in sparse/ (not the stores of build-dataset, "
    "which leaves the scenes that it reconstructs in reconstructions/)",
    "exposures": "folders of aligned images, such as illumination/SCENE/*.jpg",
}


def find_sources(root: Path) -> list[Source]:
    """List what a folder holds.

    Args:
        root: a scene (``images/`` and a COLMAP model in ``sparse/``; ``cameras.npz``, ``images/`` and ``depth/``;
            images ``1..n`` and files ``H_1_k``; a scan of DTU; a scene of MegaDepth, with ``dense0``); or a data set
            sorted into ``sfm/``, ``posed/``, ``photos/`` (single images) and ``illumination/`` (folders of aligned
            exposures); or scenes and single images side by side.

    Raises:
        FileNotFoundError: if there is none of that.

    """
    if not root.is_dir():
        raise FileNotFoundError(f"not a folder, but a file: {root}" if root.is_file() else f"no such folder: {root}")
    if dense := dense_folders(root):
        return [Source("posed", dense_name(folder), folder) for folder in dense]
    kind = scene_kind(root)
    if kind is not None:
        return [Source(kind, root.resolve().name, root)]
    found: list[Source] = []
    if any((root / part).is_dir() for part in LAYOUT):
        for part in ("sfm", "posed"):
            found += [Source(scene_kind(f) or "sfm", f"{part}/{f.name}", f) for f in _folders(root / part)]
        found += [Source("exposures", f"illumination/{f.name}", f) for f in _folders(root / "illumination")]
        if (root / "photos").is_dir() and images_in(root / "photos"):
            found.append(Source("single", "photos", root / "photos"))
    else:
        scenes = [(scene_kind(f), f) for f in _folders(root)]
        found = [Source(kind, f.name, f) for kind, f in scenes if kind is not None]
        found += [Source("posed", dense_name(f), f) for _, scene in scenes for f in dense_folders(scene)]
        if images_in(root):
            found.append(Source("single", root.resolve().name, root))
    if not found:
        deeper = "; the images in its sub-folders need one call each, or --single" if images_below(root) else ""
        if any(root.glob("*.npz")):
            deeper = "; it holds stores, which this does not read"
        raise FileNotFoundError(
            f"{root} holds no images, no scene folders (images/ and sparse/; cameras.npz; H_1_k), and none of the "
            f"folders {', '.join(f'{part}/' for part in LAYOUT)}{deeper}"
        )
    return found


def split_folders(roots: Sequence[Path], kind: Kind, split: SplitConfig) -> tuple[list[Path], list[Path]]:
    """Divide the scenes of one kind into those to train on and those held out.

    Args:
        roots: folders of training data, see :func:`find_sources`.
        kind: what is used of them.
        split: what is held out.

    Raises:
        FileNotFoundError: if a folder holds nothing.
        ValueError: if there are fewer than two, or two have the same name, by which they are held out.

    """
    folders: dict[str, Path] = {}
    for source in (source for root in roots for source in find_sources(root) if source.kind == kind):
        if source.name in folders:
            both = f"{folders[source.name]} and {source.path}"
            raise ValueError(f"two scenes are called {source.name}, {both}; rename one of the folders")
        folders[source.name] = source.path
    if len(folders) < 2:  # one to train on, one to validate with
        raise ValueError(
            f"this recipe needs at least two {_NEEDED.get(kind, kind)}; found {', '.join(folders) or 'none'} in "
            f"{', '.join(map(str, roots))}"
        )
    train, held_out = ([folders[name] for name in part] for part in split_names(list(folders), split))
    return train, held_out


def _folders(root: Path) -> list[Path]:
    return sorted(p for p in root.glob("*") if p.is_dir() and not p.name.startswith("."))
