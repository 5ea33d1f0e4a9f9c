"""From image files to a feature file: images are read ahead, and the device waits neither for them nor for the disk."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from torch import Tensor, nn

from kornia_lift._checks import check_device
from kornia_lift._io import ImageFileError, list_images, load_image_and_orientation
from kornia_lift.feature import extract_features, shrink
from kornia_lift.files import FeatureFile


@dataclass(frozen=True)
class Job:
    """One image file and its name in the feature file: its path below the folder that was given."""

    name: str
    path: Path


@dataclass(frozen=True)
class ExtractionOptions:
    """How images are read, and where features are computed.

    Attributes:
        device: device of the feature.
        dtype: dtype to compute in.
        max_size: larger images are reduced to this longer side, 0 for never.
        apply_exif: rotate images as their EXIF tag says; hloc and COLMAP read the stored pixels.
        workers: threads that read images ahead.

    Raises:
        ValueError: if this machine has no such device.
    """

    device: torch.device
    dtype: torch.dtype = torch.float32
    max_size: int = 1600
    apply_exif: bool = False
    workers: int = 4

    def __post_init__(self) -> None:
        check_device(self.device, "ExtractionOptions")


@dataclass
class Tally:
    """Results of a run.

    Attributes:
        images: images extracted.
        keypoints: keypoints of all of them.
        rotated: images among them whose EXIF tag asks for a rotation or a flip.
        failed: the reason, by name, for each image that failed.
    """

    images: int = 0
    keypoints: int = 0
    rotated: int = 0
    failed: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class _Read:
    """A gray image, reduced if too large; its original width and height; whether its EXIF tag asks for a rotation."""

    image: Tensor
    size: tuple[int, int]
    rotated: bool


def collect_images(inputs: Sequence[Path]) -> list[Job]:
    """Return the images below files and folders, sorted by name.

    Raises:
        FileNotFoundError: if an input does not exist.
        ValueError: if a folder holds no image, or two images would have the same name, or one the name of another's
            folder.
    """
    found: dict[str, Path] = {}
    for given in inputs:
        if given.is_dir():
            paths = list_images(given)
            if not paths:
                raise ValueError(f"no images in the folder {given}")
            jobs = [Job(path.relative_to(given).as_posix(), path) for path in paths]
        elif given.exists():
            jobs = [Job(given.name, given)]
        else:
            raise FileNotFoundError(f"{given} does not exist")
        for job in jobs:
            other = found.setdefault(job.name, job.path)
            if other != job.path and not other.samefile(job.path):
                raise ValueError(f"two images have the name {job.name}: {other} and {job.path}; use two feature files")
    for name, path in found.items():
        for folder in map(str, PurePosixPath(name).parents):
            if folder in found:
                raise ValueError(f"{found[folder]} has the name of the folder of {path}; use two feature files")
    return [Job(name, found[name]) for name in sorted(found)]


def shard_of(name: str, count: int) -> int:
    """Return which of ``count`` shards an image belongs to; only its name decides, whatever other images there are."""
    return int.from_bytes(hashlib.sha256(os.fsencode(name)).digest()[:8], "big") % count


def extract_images(
    jobs: Sequence[Job],
    feature: nn.Module,
    file: FeatureFile,
    options: ExtractionOptions,
    tally: Tally,
    progress: Callable[[], Any] = lambda: None,
) -> None:
    """Read, extract and write at the same time.

    Args:
        jobs: the images.
        feature: kornia local feature on the device of the options.
        file: receives the features.
        options: how to read and compute.
        tally: updated after every image, so that it is correct even if an error ends the run.
        progress: called after each image.

    Raises:
        OSError: if the file cannot be written. An image that cannot be read is recorded in ``tally``.
    """
    # Every thread that runs a parallel operation of torch keeps a team of its own. With more teams than cores, OpenMP
    # puts the threads of every team to sleep at each barrier: the networks then take 1.5 times as long.
    alone: dict[str, Any] = {"initializer": torch.set_num_threads, "initargs": (1,)}
    with ThreadPoolExecutor(options.workers, **alone) as readers, ThreadPoolExecutor(1, **alone) as writer:
        writing: Future[None] | None = None
        for job, reading in _read_ahead(jobs, options, readers):
            try:
                read = reading.result()
            except (ImageFileError, OSError) as error:
                tally.failed[job.name] = str(error)
                progress()
                continue
            features = extract_features(feature, read.image.to(options.device, options.dtype), read.size)
            problem = features.problem()
            if problem is None:
                if writing is not None:
                    writing.result()
                writing = writer.submit(file.write, job.name, features)
                tally.images += 1
                tally.keypoints += len(features)
                tally.rotated += read.rotated
            else:
                tally.failed[job.name] = f"{job.path}: {problem}"
            progress()
        if writing is not None:
            writing.result()


def _read_ahead(
    jobs: Sequence[Job], options: ExtractionOptions, readers: ThreadPoolExecutor
) -> Iterator[tuple[Job, Future[_Read]]]:
    """Yield each image while the next ones are being read; at most two per thread are in memory."""

    def submit(job: Job) -> tuple[Job, Future[_Read]]:
        return job, readers.submit(_read, job.path, options)

    waiting = iter(jobs)
    queue = [submit(job) for job in islice(waiting, 2 * options.workers)]
    try:
        while queue:
            current = queue.pop(0)
            queue.extend(submit(job) for job in islice(waiting, 1))
            yield current
    finally:  # an error elsewhere must not wait for images that nobody will use
        for _, future in queue:
            future.cancel()


@torch.inference_mode()
def _read(path: Path, options: ExtractionOptions) -> _Read:
    image, orientation = load_image_and_orientation(path, gray=True, apply_exif=options.apply_exif)
    size = image.shape[-1], image.shape[-2]
    return _Read(shrink(image, options.max_size), size, orientation != 1)
