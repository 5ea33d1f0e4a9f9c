"""From folders of photographs to training stores: what ``kornia-lift build-dataset`` does with one folder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from kornia_lift.scenes.homographies import HomographySequence
from kornia_lift.scenes.posed import PosedScene
from kornia_lift.training.data.images import list_photos
from kornia_lift.training.data.provenance import check_record, describe_source, keep_record, record_path
from kornia_lift.training.data.reconstruct import reconstruct
from kornia_lift.training.data.sources import photo_store, scene_store, sfm_store
from kornia_lift.training.data.store import Store, save_store


@dataclass(frozen=True)
class BuildOptions:
    """Options of :func:`build_store`.

    Args:
        single: the photographs show different places.
        max_size: larger side of reconstructed photographs, pixels.
        quality: of the JPEG photographs in the store.
        seed: of the reconstruction and of the choice of regions.

    """

    single: bool = False
    max_size: int = 1024
    quality: int = 88
    seed: int = 0


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
    """Build the store of one folder and write it, with what it was made of, to ``out``.

    Args:
        folder: photographs of one place, a reconstructed or posed scene, a homography sequence, or with
            ``options.single`` unrelated photographs.
        out: receives ``NAME.npz`` and ``NAME.json``, and the reconstruction in ``reconstructions/NAME``.
        options: see there.
        say: is told what takes long, and what is left out.

    Returns:
        The store, or ``None`` where it existed already, made of the same files with the same options.

    Raises:
        FileNotFoundError: if the folder or what belongs into it is missing.
        ValueError: if nothing comes of the photographs.
        OtherSourceError: if ``out`` has a store, or a reconstruction, of this name that was made of something else.

    """
    if not folder.is_dir():
        raise FileNotFoundError("no such folder")
    made, (kind, files) = store_path(folder, out), _inputs(folder, options)
    chosen = {"kind": kind, "seed": options.seed, "quality": options.quality}
    if kind == "photographs of one place":
        chosen["max_size"] = options.max_size
    record = describe_source(folder, files, chosen)
    if made.exists():
        check_record(made, record)
        return None
    store = _read(kind, folder, files, out, options, say)
    # first: what is killed in between leaves no store without a record
    keep_record(made, record)
    save_store(made, store)
    return store


def _inputs(folder: Path, options: BuildOptions) -> tuple[str, list[Path]]:
    """What a folder holds, and the files that are read of it."""
    if options.single:
        return "single photographs", list_photos(folder)
    if (folder / "cameras.npz").is_file():
        return "posed scene", [folder / "cameras.npz", *_below(folder, "images", "depth", "pairs.txt")]
    if (folder / "sparse").is_dir():
        return "reconstructed scene", _below(folder, "images", "sparse")
    homographies = [*folder.glob("H_1_*"), *folder.glob("H1to*p")]
    if homographies:
        return "homography sequence", [p for p in folder.iterdir() if p.is_file() and not p.name.startswith(".")]
    return "photographs of one place", list_photos(folder)


def _below(folder: Path, *names: str) -> list[Path]:
    return [p for name in names for p in (folder / name, *(folder / name).rglob("*")) if p.is_file()]


def _read(
    kind: str, folder: Path, files: list[Path], out: Path, options: BuildOptions, say: Callable[[str], object]
) -> Store:
    name = folder.resolve().name
    if kind == "single photographs":
        if not files:
            raise FileNotFoundError("holds no photograph (.jpg, .jpeg, .png)")
        return photo_store(files, name, seed=options.seed, quality=options.quality)
    if kind == "posed scene":
        return scene_store(PosedScene.load(folder), options.seed, options.quality)
    if kind == "homography sequence":
        sequence = HomographySequence.load(folder, all_pairs=True)
        for pair in sequence.skipped:
            say(f"{name}: images {pair.i + 1} and {pair.j + 1} are left out: {pair.reason}")
        return scene_store(sequence, options.seed, options.quality)
    if kind == "photographs of one place":
        scene = out / "reconstructions" / name
        chosen = {"max_size": options.max_size, "seed": options.seed}
        record = describe_source(folder, files, chosen)
        if (scene / "sparse").is_dir():
            check_record(scene, record)
        else:
            scene.parent.mkdir(parents=True, exist_ok=True)
            keep_record(scene, record)
            try:
                reconstruct(
                    folder,
                    scene,
                    max_size=options.max_size,
                    seed=options.seed,
                    say=lambda text: say(f"{name}: {text}"),
                )
            except BaseException:
                record_path(scene).unlink()
                raise
        folder = scene
    return sfm_store(folder, options.seed, options.quality)
