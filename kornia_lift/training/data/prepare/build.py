"""From folders of images to stores: what ``kornia-lift build-dataset`` does with one folder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kornia_lift.scenes.megadepth import dense_folders
from kornia_lift.training.data.images import images_in
from kornia_lift.training.data.prepare.options import ReadOptions
from kornia_lift.training.data.prepare.provenance import check_record, describe_source, keep_record, record_path
from kornia_lift.training.data.prepare.read import read_sources
from kornia_lift.training.data.prepare.reconstruct import reconstruct
from kornia_lift.training.data.prepare.sources import LAYOUT, Source, find_sources, scene_kind
from kornia_lift.training.data.store import Store, join_stores, save_store


@dataclass(frozen=True)
class BuildOptions:
    """Options of :func:`build_store`.

    Args:
        single: the images show different scenes.
        max_size: larger side of reconstructed and of single images, pixels.
        quality: of the JPEG images in the store.
        seed: of the reconstruction and of the choice of locations and regions.

    """

    single: bool = False
    max_size: int = 1024
    quality: int = 88
    seed: int = 0

    @property
    def read(self) -> ReadOptions:
        """Options of the readers."""
        return ReadOptions(max_size=self.max_size, quality=self.quality, seed=self.seed)


def store_path(folder: Path, out: Path) -> Path:
    """Return the file that a folder is built into."""
    return out / f"{folder.resolve().name}.npz"


def same_names(folders: list[Path]) -> str | None:
    """Say which two folders would be built into one file, if any."""
    seen: dict[str, Path] = {}
    for folder in folders:
        name = folder.resolve().name
        if name in seen:
            return f"{seen[name]} and {folder} would both become {name}.npz; rename one, or build them into two folders"
        seen[name] = folder
    return None


def build_store(folder: Path, out: Path, options: BuildOptions, say: Callable[[str], object]) -> Store | None:
    """Build the store of one folder and write it, with a record of what it was made of, to ``out``.

    Args:
        folder: images of one scene, or with ``options.single`` unrelated images, or what
            :func:`~kornia_lift.training.data.prepare.sources.find_sources` takes.
        out: receives ``NAME.npz`` and ``NAME.json``, and a reconstruction in ``reconstructions/NAME``.
        options: options of reconstruction and reading.
        say: called with the steps that take long, and what is left out.

    Returns:
        The store, or ``None`` where it existed already, made of the same files with the same options.

    Raises:
        FileNotFoundError: if the folder or something that belongs into it is missing.
        ValueError: if an option is out of range, or the images give no training data.
        OtherSourceError: if ``out`` has a store, or a reconstruction, of this name that was made of something else.

    """
    if not folder.is_dir():
        raise FileNotFoundError("a file, not a folder of images" if folder.is_file() else "no such folder")
    read = options.read  # checks the options before a reconstruction, which takes minutes
    made, sources = store_path(folder, out), _sources(folder, options)
    chosen: dict[str, Any] = {
        "kind": sources[0].kind if len(sources) == 1 else "data set" if sources else "images of one scene"
    }
    chosen |= {"max_size": options.max_size, "seed": options.seed, "quality": options.quality}
    files = [p for s in sources for p in s.files] if sources else images_in(folder)
    record = describe_source(folder, files, chosen)
    if made.exists():
        check_record(made, record)
        return None
    if not sources:
        sources = [_reconstructed(folder, files, out, options, say)]
    store = join_stores(read_sources(sources, read, say))
    # the record first: a run killed in between leaves no store without a record
    keep_record(made, record)
    save_store(made, store)
    return store


def _sources(folder: Path, options: BuildOptions) -> list[Source]:
    """What is read of a folder; nothing where its images have to be reconstructed first."""
    if options.single:
        if not images_in(folder):
            raise FileNotFoundError("holds no image (.jpg, .png, .tif, ...)")
        return [Source("single", folder.resolve().name, folder)]
    is_data = (
        scene_kind(folder) is not None or dense_folders(folder) or any((folder / part).is_dir() for part in LAYOUT)
    )
    return find_sources(folder) if is_data else []


def _reconstructed(
    folder: Path, files: list[Path], out: Path, options: BuildOptions, say: Callable[[str], object]
) -> Source:
    name = folder.resolve().name
    scene = out / "reconstructions" / name
    record = describe_source(folder, files, {"max_size": options.max_size, "seed": options.seed})
    if (scene / "sparse").is_dir():
        check_record(scene, record)
    else:
        scene.parent.mkdir(parents=True, exist_ok=True)
        keep_record(scene, record)
        try:
            reconstruct(
                folder, scene, max_size=options.max_size, seed=options.seed, say=lambda text: say(f"{name}: {text}")
            )
        except BaseException:
            record_path(scene).unlink()
            raise
    return Source("sfm", name, scene)
