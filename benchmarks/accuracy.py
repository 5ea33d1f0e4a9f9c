"""The accuracy tables of the documentation: every peer and every LIFT model on the test scenes.

    TORCH_HOME=../shared/peers python benchmarks/accuracy.py --cache CACHE                     # all models and peers
    python benchmarks/accuracy.py --cache CACHE --features lift new=weights.safetensors        # add or replace rows
    python benchmarks/accuracy.py --cache CACHE --part robustness                              # rotated and rescaled
    python benchmarks/accuracy.py --cache CACHE --part sfm                                     # reconstruction
    python benchmarks/accuracy.py --cache CACHE --part development                             # for choosing options
    python benchmarks/accuracy.py --cache CACHE --part overlap --features opencv-sift lift     # the paper's form
    python benchmarks/accuracy.py --cache CACHE --part table3 --model lift                     # parts exchanged
    python benchmarks/accuracy.py --cache CACHE --part parts --model lift                      # for kornia's
    python benchmarks/accuracy.py --cache CACHE --part all                                     # the first three

Features are extracted into the cache once. Each feature is saved as soon as it is measured: into
benchmarks/results/*/accuracy*.json, the table beside it and docs/evaluation.md. A run that was stopped goes on at the
feature where it stopped when it is started again with --resume; without it, the rows asked for are measured again.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT)]  # Python looks beside this file only

from benchmarks.development import development_groups  # noqa: E402
from benchmarks.pages.marks import put_between  # noqa: E402
from kornia_lift._io import atomic_write  # noqa: E402
from kornia_lift.evaluation.candidates import Candidate, candidate  # noqa: E402
from kornia_lift.evaluation.comparison import run, run_sfm  # noqa: E402
from kornia_lift.evaluation.features.peers import PEERS  # noqa: E402
from kornia_lift.evaluation.measures.overlap import OverlapOptions  # noqa: E402
from kornia_lift.evaluation.pair import Options  # noqa: E402
from kornia_lift.evaluation.paper_tables import parts, table2, table3  # noqa: E402
from kornia_lift.evaluation.report.blocks import Block, Heading, Paragraph, Table, to_markdown  # noqa: E402
from kornia_lift.evaluation.report.plots import save_plots  # noqa: E402
from kornia_lift.evaluation.report.results import (  # noqa: E402
    Results,
    check_same_options,
    describe_options,
    merge,
)
from kornia_lift.evaluation.report.sfm_report import SfmResults, sfm_report  # noqa: E402
from kornia_lift.evaluation.report.tables import one_measure, report, warps_table  # noqa: E402
from kornia_lift.evaluation.selection import only_second_images, warped_groups  # noqa: E402
from kornia_lift.evaluation.warps import RESCALES, ROTATIONS  # noqa: E402
from kornia_lift.scenes.folders import HOMOGRAPHY, POSED, load_scenes  # noqa: E402
from kornia_lift.scenes.scene import Scene  # noqa: E402
from kornia_lift.weights import available_models  # noqa: E402

RESULTS = Path(__file__).parent / "results"
DOCS = ROOT / "docs" / "evaluation.md"
MODELS = list(available_models())
#: The order of the rows; features that are not listed come last.
ORDER = [*MODELS, *PEERS]
#: Features of the parts that not every peer is needed for.
FEW = [*MODELS, "opencv-sift", "opencv-rootsift", "keynet-orinet-hardtfeat", "xfeat", "disk", "aliked-n16"]
ROTATABLE = [*FEW, "aliked-n16rot"]
#: Robustness is measured on the 8 pairs of Herz-Jesus-P8 with one of these as second image: every warp of every
#: further image would have to be extracted anew.
SECOND_IMAGES = ("0003", "0005")

Groups = Mapping[str, Sequence[Scene]]


@dataclass(frozen=True)
class Part:
    """One table or set of tables.

    Args:
        title: of the report.
        features: measured by default.
        baseline: feature by which the first measure is divided.
    """

    title: str
    features: Sequence[str] = ()
    baseline: str = "opencv-sift"


PARTS = {
    "accuracy": Part("Accuracy on the test scenes", ORDER),
    "robustness": Part("Second image rotated or rescaled, Herz-Jesus-P8", ROTATABLE),
    "sfm": Part("Structure from motion, Herz-Jesus-P8", FEW, "opencv-rootsift"),
    "development": Part("Accuracy on the development scenes", FEW),
    "overlap": Part("Accuracy in the overlap form", [*MODELS, "opencv-sift", "opencv-rootsift", "opencv-orb"]),
    "table2": Part("Table 2: detector pre-trained against fully trained", baseline=""),
    "table3": Part("Table 3: parts exchanged for SIFT's", baseline="sift + sift + sift"),
    "parts": Part("Each part against others that do the same", baseline="lift + lift + lift"),
}


def main() -> int:
    args = _parse()
    for part in ("accuracy", "robustness", "sfm") if args.part == "all" else (args.part,):
        entries = _candidates(part, args)
        (_sfm if part == "sfm" else _tables)(part, entries, args)
    return 0


def _tables(part: str, entries: Sequence[Candidate], args: argparse.Namespace) -> None:
    """Measure feature by feature; save and show after each."""
    groups, options = _scenes(part, args)
    path = _path(part, args)
    if path.exists() and not args.fresh:  # before minutes are spent
        try:
            check_same_options(Results.load(path), Results(part, [], describe_options(options), {}))
        except ValueError as error:
            sys.exit(f"{path}: {error}; --fresh measures all rows again")
    for entry in _missing(entries, path, args, lambda: [f.name for f in Results.load(path).features]):
        results = _timed(
            entry,
            lambda entry=entry: run(PARTS[part].title, [entry], groups, args.cache, options=options, progress=_say),
        )
        if path.exists():
            results = merge(Results.load(path), results)
        results.save(path)
    results = Results.load(path)
    rank = {name: k for k, name in enumerate(ORDER)}
    if PARTS[part].features:
        results = replace(results, features=sorted(results.features, key=lambda f: rank.get(f.name, len(rank))))
        results.save(path)
    blocks = _robustness(results) if part == "robustness" else report(results, baseline=PARTS[part].baseline)
    if part == "accuracy":
        save_plots(results, path.parent, "accuracy_")
    _show(part, blocks, path, args)


def _sfm(part: str, entries: Sequence[Candidate], args: argparse.Namespace) -> None:
    scenes = load_scenes([args.data])[POSED]
    path = _path(part, args)
    for entry in _missing(entries, path, args, lambda: list(SfmResults.load(path).features)):
        results = _timed(entry, lambda entry=entry: run_sfm([entry], scenes, args.cache, progress=_say))
        if path.exists():
            results = SfmResults.load(path).merge(results)
        results.save(path)
    results = SfmResults.load(path)
    rank = {name: k for k, name in enumerate(ORDER)}
    order = sorted(results.features, key=lambda name: rank.get(name, len(rank)))
    results = replace(results, features={name: results.features[name] for name in order})
    _show(part, sfm_report(results), path, args)


def _candidates(part: str, args: argparse.Namespace) -> list[Candidate]:
    if part == "table3":
        return table3(args.model)
    if part == "parts":
        return parts(args.model)
    if part == "table2":
        return table2(args.model, args.pretrained_detector)
    return [candidate(spec) for spec in args.features or PARTS[part].features]


def _scenes(part: str, args: argparse.Namespace) -> tuple[Groups, Options]:
    options = Options(1000)
    if part == "development":
        return development_groups(args.train), options
    groups = {name: scenes for name, scenes in load_scenes([args.data]).items() if name in args.groups}
    if part == "robustness":
        scenes = [only_second_images(s, SECOND_IMAGES) for s in groups[POSED]]
        return warped_groups(scenes, (*ROTATIONS, *RESCALES)), replace(options, estimator=None)
    if part == "overlap":
        forms = tuple(OverlapOptions(e, n) for n in (False, True) for e in (40.0, 50.0))
        return groups, Options(1000, estimator=None, overlap=forms)
    if part in ("table2", "table3"):
        return {POSED: groups[POSED]}, options  # as in the paper
    return groups, options


def _missing(
    entries: Sequence[Candidate], path: Path, args: argparse.Namespace, present: Callable[[], list[str]]
) -> list[Candidate]:
    """The features to measure now; with --resume those that the result file lacks."""
    if args.fresh:
        path.unlink(missing_ok=True)
    done = set(present()) if args.resume and path.exists() else set()
    return [entry for entry in entries if entry.name not in done]


def _robustness(results: Results) -> list[Block]:
    """Correct matches by warp, and what share of those of the upright pair they are."""
    table = warps_table(results)
    shares = []
    for row in table.rows:
        first = float(row[1]) if row[1] != "–" else 0.0
        shares.append([row[0], *(f"{float(v) / first:.2f}" if first and v != "–" else "–" for v in row[1:])])
    measure = one_measure(results, *results.groups).replace("_", " ")
    return [
        Heading(results.title, 1),
        Paragraph(f"{measure.capitalize()}; second images {', '.join(SECOND_IMAGES)}, 8 pairs."),
        table,
        Paragraph("The same over those of the images as they are:"),
        Table(table.head, shares),
    ]


def _show(part: str, blocks: Sequence[Block], path: Path, args: argparse.Namespace) -> None:
    text = to_markdown(blocks)
    with atomic_write(path.with_suffix(".md")) as temporary:
        temporary.write_text(text)
    if not args.no_docs:
        _show_in_docs(part, text)
    print(text)


def _show_in_docs(part: str, text: str) -> None:
    """Put the report, without its title and with smaller headings, between the marks of docs/evaluation.md."""
    body = "\n".join(f"##{line}" if line.startswith("#") else line for line in text.splitlines()[1:]).strip()
    put_between(DOCS, part, body)


def _timed(entry: Candidate, measure: Callable[[], Any]) -> Any:
    wall, processor = time.perf_counter(), time.process_time()
    result = measure()
    _say(f"{entry.name}: {time.perf_counter() - wall:.0f} s, processor {time.process_time() - processor:.0f} s")
    return result


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _path(part: str, args: argparse.Namespace) -> Path:
    folder: Path = args.results / ("paper" if part in ("overlap", "table2", "table3", "parts") else "accuracy")
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{'accuracy' if part == 'accuracy' else f'accuracy_{part}'}.json"


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    shared = ROOT.parent / "shared" / "data"
    parser.add_argument("--part", choices=[*PARTS, "all"], default="accuracy")
    parser.add_argument("--features", nargs="+", help="default: those of the part")
    parser.add_argument("--data", type=Path, default=shared / "test")
    parser.add_argument("--train", type=Path, default=shared / "train", help="for the development scenes")
    parser.add_argument("--groups", nargs="+", default=[POSED, HOMOGRAPHY], help="only these groups of scenes")
    parser.add_argument("--cache", type=Path, required=True, help="folder for extracted features")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--model", default="lift", help="for table2, table3 and parts")
    parser.add_argument("--pretrained-detector", help="weight file, for table2")
    parser.add_argument("--resume", action="store_true", help="measure only what the result file lacks")
    parser.add_argument("--fresh", action="store_true", help="forget the rows measured before")
    parser.add_argument("--no-docs", action="store_true", help="do not update docs/evaluation.md")
    args = parser.parse_args()
    if args.part == "table2" and not args.pretrained_detector:
        parser.error("table2 needs --pretrained-detector FILE")
    return args


if __name__ == "__main__":
    sys.exit(main())
