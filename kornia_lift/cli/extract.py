"""``kornia-lift extract``: images in, one hloc feature file out, in one process or many."""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kornia_lift._words import counted
from kornia_lift.cli._options import CommandError, add_feature_options, add_workers_option, report_unread

if TYPE_CHECKING:
    from kornia_lift.extraction import Job, Tally
    from kornia_lift.files import FeatureFile

_NOT_UNICODE = "the name is not valid Unicode, as h5 requires: rename it"
_DESCRIPTION = """\
Extract features from images or folders into one h5 file in the format of hloc: a group per image with keypoints
(N, 2), descriptors (128, N, unit length), scores, scales, oris, image_size. Images that the file already holds are
skipped, so a run that was stopped continues where it was. A broken image is reported at the end (exit code 1), the
others are extracted. With --overwrite the old file stays if the run is stopped, or if an image that it holds fails.
"""
_EPILOG = """\
examples:
  kornia-lift extract images/ --out features.h5
  kornia-lift extract a.jpg b.png --out features.h5 --num-features 8000
  kornia-lift extract images/ --out features.h5 --shard 0/2    on one machine, 1/2 on another, then:
  kornia-lift merge features.shard-*.h5 --out features.h5
  torchrun --nproc-per-node 4 -m kornia_lift extract images/ --out features.h5    one shard per process
"""


def add_parser(commands: Any) -> None:
    """Add the command to the sub-parsers."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "extract",
        help="extract features from images or folders into one h5 file (hloc)",
        description=_DESCRIPTION,
        epilog=_EPILOG,
    )
    parser.add_argument("inputs", type=Path, nargs="+", metavar="PATH", help="image files, or folders of them")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.h5", help="the feature file")
    parser.add_argument(
        "--overwrite", action="store_true", help="extract everything again; an old file stays until then"
    )
    add_workers_option(parser)
    parser.add_argument(
        "--shard",
        type=_shard,
        metavar="I/N",
        help="extract only part I = 0 .. N-1 of N, chosen by the images' names (default: the rank of torchrun, else "
        "everything)",
    )
    # COLMAP and hloc read the stored pixels: keypoints in other pixels make a wrong reconstruction without an error
    add_feature_options(parser, num_features=2000, resize=1600, apply_exif=False)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Extract what the file does not hold yet."""
    import time

    from kornia_lift._extras import require
    from kornia_lift.cli._feature import build_feature, provenance
    from kornia_lift.extraction import ExtractionOptions, Tally, collect_images, extract_images, shard_of
    from kornia_lift.files import FeatureFile

    index, count = args.shard or _torchrun_shard()
    report_unread(args.inputs)
    try:
        mine = [job for job in collect_images(args.inputs) if shard_of(job.name, count) == index]
    except ValueError as error:
        raise CommandError(str(error)) from error
    out = _shard_file(args.out, index, count)
    feature, device, dtype = build_feature(args)
    options = ExtractionOptions(device, dtype, args.resize, args.apply_exif, args.workers)
    made_with = {**provenance(args), "scaling_coef": float(getattr(feature, "scaling_coef", 1.0))}
    tally = Tally(failed={job.name: f"{job.path}: {_NOT_UNICODE}" for job in mine if not _is_unicode(job.name)})
    with FeatureFile(out, made_with, (index, count), anew=args.overwrite) as file:
        good = [job for job in mine if job.name not in tally.failed]
        todo = [job for job in good if job.name not in file]
        present = len(good) - len(todo)
        bar = require("tqdm", extra="cli").tqdm(
            total=len(good), initial=present, unit="image", disable=None, position=index, desc=out.name
        )
        start = time.perf_counter()
        with bar:
            try:
                extract_images(todo, feature, file, options, tally, bar.update)
            except BaseException as error:
                if not isinstance(error, OSError):  # a disk without room for an image has none for the feature file
                    _keep_what_is_done(file, mine, tally)
                raise
        _finish(file, mine, tally)
    seconds = time.perf_counter() - start
    rate = f" in {seconds:.1f} s ({tally.images / seconds:.2f} images/s)" if tally.images else ""
    skipped = f", {present} already present, skipped" if present else ""
    print(f"{counted(tally.images, 'image')}, {counted(tally.keypoints, 'keypoint')}{rate}{skipped}: {out}")
    if tally.rotated:
        print(_about_exif(tally, args.apply_exif))
    if tally.failed:
        print(f"kornia-lift: {len(tally.failed)} of {counted(len(mine), 'image')} failed:", file=sys.stderr)
        print(*(f"  {line}" for line in tally.failed.values()), sep="\n", file=sys.stderr)
    return 1 if tally.failed else 0


def _about_exif(tally: Tally, applied: bool) -> str:
    how = (
        "keypoints are in the rotated images, as viewers show them; hloc and COLMAP read the stored pixels"
        if applied
        else "keypoints are in the stored pixels, as hloc and COLMAP read them (--apply-exif: as viewers show them)"
    )
    return f"{tally.rotated} of {tally.images} images have an EXIF tag that rotates them: {how}"


def _keep_what_is_done(file: FeatureFile, mine: Sequence[Job], tally: Tally) -> None:
    """Pack the images of a run that was stopped. An error here must not hide why it was stopped."""
    from kornia_lift.files import FeatureFileError

    try:
        if file.replaces:
            _say_old_file_stays(file, "the run did not end")
        else:
            file.finish(missing=_missing(file, mine, tally))
    except (OSError, FeatureFileError) as error:
        print(f"kornia-lift: {error}", file=sys.stderr)


def _finish(file: FeatureFile, mine: Sequence[Job], tally: Tally) -> None:
    """Pack what was extracted, unless that would replace a file that holds more."""
    lost = file.would_lose(tally.failed)
    if lost:
        _say_old_file_stays(file, f"it holds {counted(len(lost), 'image')} that failed now")
    else:
        file.finish(missing=_missing(file, mine, tally))


def _missing(file: FeatureFile, mine: Sequence[Job], tally: Tally) -> int:
    return sum(job.name in tally.failed or job.name not in file for job in mine)


def _say_old_file_stays(file: FeatureFile, why: str) -> None:
    print(
        f"kornia-lift: {file.path} was not replaced, since {why}; the new images are in {file.parts}", file=sys.stderr
    )


def _is_unicode(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _shard_file(out: Path, index: int, count: int) -> Path:
    """Return the feature file of a shard, after checking that it can be written."""
    from kornia_lift._io import check_writable

    if out.suffix.lower() not in (".h5", ".hdf5"):
        raise CommandError(f"--out {out}: the name of a feature file must end in .h5")
    if out.is_dir() or not out.parent.is_dir():
        raise CommandError(f"--out {out}: " + ("a folder" if out.is_dir() else "its folder does not exist"))
    check_writable(out)
    return out if count == 1 else out.with_name(f"{out.stem}.shard-{index}-of-{count}{out.suffix}")


def _shard(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"(\d+)/(\d+)", text)
    if found is None or int(found[1]) >= int(found[2]):
        raise argparse.ArgumentTypeError(f"expected I/N with I from 0 to N-1, for example 0/4, got {text!r}")
    return int(found[1]), int(found[2])


def _torchrun_shard() -> tuple[int, int]:
    """Return the part of the work that this process of torchrun does; everything otherwise."""
    try:
        return int(os.environ.get("RANK", "0")), max(1, int(os.environ.get("WORLD_SIZE", "1")))
    except ValueError as error:
        raise CommandError(f"RANK and WORLD_SIZE in the environment must be numbers: {error}") from error
