"""``kornia-lift extract``: photographs in, one hloc feature file out, in one process or many."""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from torch import Tensor, nn

from kornia_lift._extras import require
from kornia_lift._io import ImageFileError, check_writable, list_images, load_image
from kornia_lift.cli._errors import CommandError
from kornia_lift.cli._options import add_feature_options, place, positive, provenance
from kornia_lift.files import FeatureFile
from kornia_lift.matching import extract_features, shrink

_NOT_UNICODE = "the name is not valid Unicode, which an h5 file demands: rename it"
_DESCRIPTION = """\
Describe photographs and write one h5 file in the format of hloc: a group per image with keypoints (N, 2),
descriptors (128, N, unit length), scores, scales, oris, image_size. Images that the file already holds are skipped,
so a run that was stopped goes on where it was. A broken image is reported at the end (exit code 1), the rest is done.
With --overwrite the old file stays if the run is stopped, or if an image that it holds fails.
"""
_EPILOG = """\
examples:
  kornia-lift extract photos/ --out features.h5
  kornia-lift extract a.jpg b.png --out features.h5 --num-features 8000
  kornia-lift extract photos/ --out features.h5 --shard 0/2    on one machine, 1/2 on another, then:
  kornia-lift merge features.shard-*.h5 --out features.h5
  torchrun --nproc-per-node 4 -m kornia_lift.cli extract photos/ --out features.h5    shards by itself
"""


@dataclass(frozen=True)
class Job:
    """One photograph and its name in the feature file: its path below the folder that was given."""

    name: str
    path: Path


def add_parser(commands: Any) -> None:
    """Add the command to the sub-parsers."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "extract",
        help="describe files or folders into one h5 file (hloc)",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("inputs", type=Path, nargs="+", metavar="PATH", help="image files, or folders of them")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.h5", help="the feature file")
    parser.add_argument("--overwrite", action="store_true", help="make the file anew; an old one stays until then")
    parser.add_argument(
        "--workers",
        type=positive,
        default=min(4, os.cpu_count() or 1),
        metavar="N",
        help="threads that read images ahead (default: %(default)s)",
    )
    parser.add_argument(
        "--shard",
        type=_shard,
        metavar="I/N",
        help="do only part I = 0 .. N-1 of N; an image's name says its part (default: as torchrun says, else all)",
    )
    add_feature_options(parser, num_features=2000, resize=1600)
    parser.set_defaults(run=run)


@dataclass
class Tally:
    """What came of a run; of each image that failed, by name, why."""

    images: int = 0
    keypoints: int = 0
    failed: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Placed:
    """A feature, and where and in which numbers it computes."""

    feature: nn.Module
    device: torch.device
    dtype: torch.dtype


def run(args: argparse.Namespace) -> int:
    """Describe what is not described yet."""
    index, count = args.shard or _torchrun_shard()
    mine = [job for job in collect(args.inputs) if shard_of(job.name, count) == index]
    out = _shard_file(args.out, index, count)
    placed = Placed(*place(args.make_feature(args), args))
    enlarged = float(getattr(placed.feature, "scaling_coef", 1.0))
    tally = Tally(failed={job.name: f"{job.path}: {_NOT_UNICODE}" for job in mine if not _is_unicode(job.name)})
    options = {**provenance(args), "scaling_coef": enlarged}
    with FeatureFile(out, options, (index, count), anew=args.overwrite) as file:
        good = [job for job in mine if job.name not in tally.failed]
        todo = [job for job in good if job.name not in file]
        there = len(good) - len(todo)
        bar = require("tqdm", extra="cli").tqdm(
            total=len(good), initial=there, unit="image", disable=None, position=index, desc=out.name
        )
        start = time.perf_counter()
        with bar:
            complete = False
            try:
                describe_all(todo, args, placed, file, tally, bar.update)
                complete = True
            finally:
                _finish(file, complete, mine, tally)
    seconds = time.perf_counter() - start
    rate = f" in {seconds:.1f} s ({tally.images / seconds:.2f} images/s)" if tally.images else ""
    skipped = f", {there} were there already" if there else ""
    print(f"{tally.images} images, {tally.keypoints} keypoints{rate}{skipped}: {out}")
    if tally.failed:
        print(f"kornia-lift: {len(tally.failed)} of {len(mine)} images failed:", file=sys.stderr)
        print(*(f"  {line}" for line in tally.failed.values()), sep="\n", file=sys.stderr)
    return 1 if tally.failed else 0


def _finish(file: FeatureFile, complete: bool, mine: Sequence[Job], tally: Tally) -> None:
    """Pack what was made, unless that would put less in the place of more."""
    lost = file.would_lose(tally.failed)
    if file.replaces and (lost or not complete):
        why = f"it holds {len(lost)} images that failed now" if complete else "the run did not end"
        print(
            f"kornia-lift: {file.path} stays as it was, since {why}; the new images wait in {file.parts}",
            file=sys.stderr,
        )
    else:
        file.finish(missing=sum(job.name in tally.failed or job.name not in file for job in mine))


def describe_all(
    jobs: Sequence[Job],
    args: argparse.Namespace,
    placed: Placed,
    file: FeatureFile,
    tally: Tally,
    progress: Callable[[], Any],
) -> None:
    """Read, describe and write at the same time: the device waits neither for decoding nor for the disk."""
    # A thread that runs a parallel operation of torch keeps a team of its own. With more teams than cores OpenMP puts
    # the threads of every team to sleep at each barrier: the networks then take half as long again.
    alone: dict[str, Any] = {"initializer": torch.set_num_threads, "initargs": (1,)}
    with ThreadPoolExecutor(args.workers, **alone) as readers, ThreadPoolExecutor(1, **alone) as writer:
        writing: Future[None] | None = None
        for job, reading in read_ahead(jobs, args, readers):
            try:
                image, size = reading.result()
            except (ImageFileError, OSError) as error:
                tally.failed[job.name] = str(error)
                progress()
                continue
            features = extract_features(placed.feature, image.to(placed.device, placed.dtype), size)
            if writing is not None:
                writing.result()
            writing = writer.submit(file.write, job.name, features)
            tally.images += 1
            tally.keypoints += len(features)
            progress()
        if writing is not None:
            writing.result()


def shard_of(name: str, count: int) -> int:
    """Return which of ``count`` shards an image belongs to: by its name alone, so that added images move no other."""
    return int.from_bytes(hashlib.sha256(os.fsencode(name)).digest()[:8], "big") % count


def _is_unicode(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _shard_file(out: Path, index: int, count: int) -> Path:
    """The feature file of a shard, once it is clear that it can be written."""
    if out.suffix not in (".h5", ".hdf5"):
        raise CommandError(f"--out {out}: a feature file must end in .h5")
    if out.is_dir() or not out.parent.is_dir():
        raise CommandError(f"--out {out}: " + ("this is a folder" if out.is_dir() else "its folder does not exist"))
    check_writable(out)
    return out if count == 1 else out.with_name(f"{out.stem}.shard-{index}-of-{count}{out.suffix}")


def collect(inputs: Sequence[Path]) -> list[Job]:
    """Return the photographs below files and folders, sorted by name.

    Raises:
        CommandError: if an input is missing, holds no image, or two photographs would have the same name, or one
            the name of another's folder.
    """
    found: dict[str, Path] = {}
    for given in inputs:
        if given.is_dir():
            paths = list_images(given)
            if not paths:
                raise CommandError(f"no images in the folder {given}")
            jobs = [Job(path.relative_to(given).as_posix(), path) for path in paths]
        elif given.exists():
            jobs = [Job(given.name, given)]
        else:
            raise CommandError(f"{given} does not exist")
        for job in jobs:
            other = found.setdefault(job.name, job.path)
            if other != job.path and not other.samefile(job.path):
                raise CommandError(f"two images have the name {job.name}: {other} and {job.path}; extract them apart")
    for name, path in found.items():
        for folder in map(str, PurePosixPath(name).parents):
            if folder in found:
                raise CommandError(f"{found[folder]} has the name of the folder of {path}; extract them apart")
    return [Job(name, found[name]) for name in sorted(found)]


def read_ahead(
    jobs: Sequence[Job], args: argparse.Namespace, readers: ThreadPoolExecutor
) -> Iterator[tuple[Job, Future[tuple[Tensor, tuple[int, int]]]]]:
    """Yield each photograph while the next ones are being read; at most two per thread lie in memory."""

    def submit(job: Job) -> tuple[Job, Future[tuple[Tensor, tuple[int, int]]]]:
        return job, readers.submit(_read, job.path, not args.ignore_exif, args.resize)

    waiting = iter(jobs)
    queue = [submit(job) for job in islice(waiting, 2 * args.workers)]
    try:
        while queue:
            current = queue.pop(0)
            queue.extend(submit(job) for job in islice(waiting, 1))
            yield current
    finally:  # an error elsewhere must not wait for pictures that nobody will use
        for _, future in queue:
            future.cancel()


@torch.inference_mode()
def _read(path: Path, apply_exif: bool, resize: int) -> tuple[Tensor, tuple[int, int]]:
    """The gray photograph, reduced, and the width and height that it had."""
    image = load_image(path, gray=True, apply_exif=apply_exif)
    return shrink(image, resize), (image.shape[-1], image.shape[-2])


def _shard(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"(\d+)/(\d+)", text)
    if found is None or int(found[1]) >= int(found[2]):
        raise argparse.ArgumentTypeError(f"expected I/N with I from 0 to N-1, for example 0/4, got {text!r}")
    return int(found[1]), int(found[2])


def _torchrun_shard() -> tuple[int, int]:
    """The part of the work that falls to this process under torchrun; all of it otherwise."""
    try:
        return int(os.environ.get("RANK", "0")), max(1, int(os.environ.get("WORLD_SIZE", "1")))
    except ValueError as error:
        raise CommandError(f"RANK and WORLD_SIZE in the environment must be numbers: {error}") from error
