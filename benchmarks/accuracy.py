"""The accuracy tables of the documentation: every peer and every LIFT model on the test photographs.

    TORCH_HOME=../shared/peers python benchmarks/accuracy.py --cache CACHE                      # all peers
    python benchmarks/accuracy.py --cache CACHE --features lift lift-upright                    # add rows
    python benchmarks/accuracy.py --cache CACHE --part robustness --features opencv-sift lift   # turned and rescaled
    python benchmarks/accuracy.py --cache CACHE --part overlap --features opencv-sift lift      # the paper's form
    python benchmarks/accuracy.py --cache CACHE --part table3 --model lift                      # parts exchanged
    python benchmarks/accuracy.py --cache CACHE --part parts --model lift                       # for kornia's

Each call extracts what the cache lacks, replaces the rows it measured in benchmarks/results/accuracy*.json and writes
the table beside it and into docs/evaluation.md.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

from kornia_lift.evaluation.features.peers import PEERS
from kornia_lift.evaluation.measures.overlap import OverlapOptions
from kornia_lift.evaluation.protocols import (
    candidate,
    merge,
    only_second_images,
    parts,
    run,
    table2,
    table3,
    warped_groups,
)
from kornia_lift.evaluation.report.plots import save_plots
from kornia_lift.evaluation.report.results import Results
from kornia_lift.evaluation.report.tables import report, warps_table
from kornia_lift.evaluation.runner import Options
from kornia_lift.evaluation.warps import RESCALES, ROTATIONS
from kornia_lift.scenes.folders import HOMOGRAPHY, POSED, load_scenes

RESULTS = Path(__file__).parent / "results"
DOCS = Path(__file__).parents[1] / "docs" / "evaluation.md"
#: The order of the rows; features that are not listed come last.
ORDER = ["lift", "lift-pooled", "lift-upright", *PEERS]
#: Robustness is measured on the 8 pairs of Herz-Jesus-P8 with one of these as second image: every warp of every
#: further image would have to be extracted anew.
SECOND_IMAGES = ("0003", "0005")
TITLES = {
    "accuracy": "Accuracy on the test photographs",
    "robustness": "Second image turned or rescaled, Herz-Jesus-P8",
    "overlap": "Accuracy in the overlap form",
    "table2": "Table 2: detector pre-trained against fully trained",
    "table3": "Table 3: parts exchanged for SIFT's",
    "parts": "Each part against others that do the same",
}


def main() -> int:
    args = _parse()
    groups = {name: scenes for name, scenes in load_scenes([args.data]).items() if name in args.groups}
    options = Options(1000)
    if args.part == "robustness":
        scenes = [only_second_images(s, SECOND_IMAGES) for s in groups[POSED]]
        groups, options = warped_groups(scenes, (*ROTATIONS, *RESCALES)), replace(options, estimator=None)
    elif args.part == "overlap":
        forms = tuple(OverlapOptions(e, n) for n in (False, True) for e in (40.0, 50.0))
        options = Options(1000, estimator=None, overlap=forms)
    if args.part in ("table2", "table3"):
        groups = {POSED: groups[POSED]}  # as in the paper
    if args.part == "table3":
        candidates = table3(args.model)
    elif args.part == "parts":
        candidates = parts(args.model)
    elif args.part == "table2":
        candidates = table2(args.model, args.pretrained_detector)
    else:
        candidates = [candidate(spec) for spec in args.features]
    results = run(
        TITLES[args.part], candidates, groups, args.cache, options=options, progress=lambda t: print(t, file=sys.stderr)
    )
    stem = "accuracy" if args.part == "accuracy" else f"accuracy_{args.part}"
    path = args.results / f"{stem}.json"
    if path.exists() and not args.fresh:
        results = merge(Results.load(path), results)
    rank = {name: k for k, name in enumerate(ORDER)}
    if args.part in ("accuracy", "robustness", "overlap"):
        results = replace(results, features=sorted(results.features, key=lambda f: rank.get(f.name, len(rank))))
    args.results.mkdir(parents=True, exist_ok=True)
    results.save(path)
    baseline = {"table3": "sift + sift + sift", "parts": "lift + lift + lift"}.get(args.part, "opencv-sift")
    text = report(results, baseline=baseline)
    if args.part == "robustness":
        lines = [f"# {results.title}", "", f"Matching score; second images {', '.join(SECOND_IMAGES)}, 8 pairs.", ""]
        text = "\n".join([*lines, warps_table(results), ""])
    (args.results / f"{stem}.md").write_text(text)
    if args.part == "accuracy":
        save_plots(results, args.results, "accuracy_")
    if not args.no_docs:
        _show_in_docs(args.part, text)
    print(text)
    return 0


def _show_in_docs(part: str, text: str) -> None:
    """Put the report, without its title and with smaller headings, between the marks of docs/evaluation.md."""
    body = "\n".join(f"##{line}" if line.startswith("#") else line for line in text.splitlines()[1:]).strip()
    begin, end = f"<!-- {part}: begin -->", f"<!-- {part}: end -->"
    page = DOCS.read_text()
    if begin not in page or end not in page:
        raise ValueError(f"{DOCS} lacks the marks {begin} and {end}.")
    head, tail = page.partition(begin)[0], page.partition(end)[2]
    DOCS.write_text(f"{head}{begin}\n{body}\n{end}{tail}")


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=TITLES, default="accuracy")
    parser.add_argument("--features", nargs="+", default=list(PEERS), help="default: all peers")
    parser.add_argument("--data", type=Path, default=Path(__file__).parents[2] / "shared" / "data" / "test")
    parser.add_argument("--groups", nargs="+", default=[POSED, HOMOGRAPHY], help="only these groups of scenes")
    parser.add_argument("--cache", type=Path, required=True, help="folder for feature files")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--model", default="lift", help="for table2, table3 and parts")
    parser.add_argument("--pretrained-detector", help="weight file, for table2")
    parser.add_argument("--fresh", action="store_true", help="forget the rows measured before")
    parser.add_argument("--no-docs", action="store_true", help="do not update docs/evaluation.md")
    args = parser.parse_args()
    if args.part == "table2" and not args.pretrained_detector:
        parser.error("table2 needs --pretrained-detector FILE")
    return args


if __name__ == "__main__":
    sys.exit(main())
