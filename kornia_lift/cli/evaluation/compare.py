"""``kornia-lift compare``: is one feature better than another?"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kornia_lift.cli._options import CommandError

if TYPE_CHECKING:
    from kornia_lift.evaluation.measures.statistics import Comparison


def add_parser(commands: Any) -> None:
    """Add the command to the sub-parsers."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "compare",
        help="say whether one feature beats another",
        description="Say whether feature A is better than feature B: paired bootstrap over the pairs of images that "
        "both were measured on, for each group of scenes and measure.",
        formatter_class=argparse.HelpFormatter,
    )
    parser.add_argument("results", type=Path, metavar="RESULTS", help="results.json of `kornia-lift evaluate`")
    parser.add_argument("first", metavar="A", help="name of a feature")
    parser.add_argument("second", metavar="B", help="name of a feature")
    parser.add_argument(
        "--other", type=Path, metavar="RESULTS", help="the results.json that holds B, where that is another file"
    )
    parser.add_argument(
        "-m",
        "--measure",
        nargs="+",
        default=["correct_matches", "matching_score"],
        help="names of measures in the file (default: correct_matches matching_score)",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print, for each group and measure, whether A beats B."""
    from kornia_lift.evaluation.report.results import Results, check_same_options, compare_features

    try:
        results = Results.load(args.results)
        other = Results.load(args.other) if args.other else results
        first, second = results.feature(args.first), other.feature(args.second)
        check_same_options(results, other)
    except (ValueError, KeyError) as error:
        raise CommandError(str(error.args[0])) from error
    known = {m for f in (first, second) for group in f.pairs for m in f.measures(group)}
    unknown = [m for m in args.measure if m not in known]
    if unknown:
        raise CommandError(f"no measure {', '.join(unknown)} in these results; there are {', '.join(sorted(known))}")
    silent = dict.fromkeys(args.measure)
    for group in dict.fromkeys([*first.pairs, *second.pairs]):
        for measure in args.measure:
            if not all(measure in f.measures(group) for f in (first, second)):
                if any(measure in f.measures(group) for f in (first, second)):
                    print(f"{group}, {measure}: only one of the two was measured", file=sys.stderr)
                continue
            try:
                found = compare_features(first, second, group, measure)
            except ValueError as error:
                print(f"{group}, {measure}: {error}", file=sys.stderr)
                continue
            silent.pop(measure, None)
            print(f"{group}, {measure}: {_sentence(found, first.name, second.name)}")
            alone = max(sum(len(v) for v in f.values(group, measure).values()) for f in (first, second)) - found.pairs
            if alone:
                print(f"{group}, {measure}: {alone} pairs that only one of the two has are left out", file=sys.stderr)
    if silent:
        raise CommandError(f"{first.name} and {second.name} cannot be compared by {', '.join(silent)}")
    return 0


def _sentence(found: Comparison, first: str, second: str) -> str:
    from kornia_lift.evaluation.measures.statistics import FEWEST_PAIRS

    verdict = f"{first} is {found.verdict} than {second}"
    if found.verdict == "undecided":
        verdict = f"undecided between {first} and {second}"
        if found.pairs < FEWEST_PAIRS:
            few = "one pair is" if found.pairs == 1 else f"{found.pairs} pairs are"
            verdict += f", {few} too few to decide"
    return (
        f"{verdict} (ratio {found.ratio:.3f}, difference {found.difference.value:+.4f}, 95 % interval "
        f"{found.difference.low:+.4f} to {found.difference.high:+.4f}, p = {found.p_value:.4f}, wins "
        f"{found.wins:.0%} of {found.pairs} pairs{'; smaller is better' if found.lower_is_better else ''})"
    )
