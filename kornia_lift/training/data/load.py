"""Training data from stores and from folders of images, which are read as ``build-dataset`` reads them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from kornia_lift.training.data.prepare.options import ReadOptions
from kornia_lift.training.data.prepare.read import read_sources
from kornia_lift.training.data.prepare.sources import Source, find_sources
from kornia_lift.training.data.store import Store, join_stores, load_store


def load_data(
    paths: Sequence[Path], options: ReadOptions | None = None, say: Callable[[str], object] = lambda text: None
) -> Store:
    """Read and join training data.

    Args:
        paths: stores (``.npz``), folders that hold stores, or folders of scenes and images, see
            :func:`~kornia_lift.training.data.prepare.sources.find_sources`.
        options: how folders of images are read.
        say: called with what is read and what is left out.

    Raises:
        FileNotFoundError: if there are no data.
        StoreError: if a store is damaged.
        ValueError: if an image is damaged, or two have one name, no source shows anything to learn from, or a path
            is that of another file.

    """
    stores: list[Store] = []
    for path in paths:
        if path.is_file() and path.suffix != ".npz":
            raise ValueError(
                f"expected a folder of images or a store of `kornia-lift build-dataset` (.npz), got {path}"
            )
        inside = sorted(path.glob("*.npz")) if path.is_dir() else [path]
        inside = [p for p in inside if p.name != "cameras.npz"]
        if inside:
            stores += [load_store(p) for p in inside]
            continue
        say(f"reading the images of {path}; `kornia-lift build-dataset` does this once for all runs")
        sources = find_sources(path)
        for source in sources:
            if source.kind == "single":
                say(_single(source))
        stores += read_sources(sources, options, say)
    return join_stores(stores)


def _single(source: Source) -> str:
    """Say what is assumed of images whose scene is not known."""
    count, folder = len(source.files), source.path
    if count == 1:
        return f"{folder}: 1 image without cameras, taken as a single one; its second views are synthetic"
    return (
        f"{folder}: {count} images without cameras, taken as single images of different things. Their second views are "
        "synthetic: the image warped by a homography. Held-out images may show what training images show. If all show "
        f"one scene, reconstruct it first: `kornia-lift build-dataset {folder} --out DATASET`, then `train --data "
        "DATASET`"
    )
