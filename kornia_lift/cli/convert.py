"""``kornia-lift convert``: the user's own copy of published weights in, a ``.safetensors`` file out."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from kornia_lift.cli._options import CommandError

_KINDS = ("deepdesc", "lift-descriptor", "tilde", "learned-orientation")
_DESCRIPTION = """\
Convert published weights from your own copy: DeepDesc (.t7), LIFT's descriptor (.h5), TILDE's filters (.txt, full or
separable) and the learned orientation of CVPR 2016 (a folder of .npy). Nothing in the files is executed. What is known
of the licence is printed and stored in the file; `kornia_lift.convert.load_converted` gives the network.
"""
_EPILOG = """\
examples:
  kornia-lift convert CNN3_p8_n8_split4_073000.t7 --out deepdesc.safetensors
  kornia-lift convert Mexico24.txt --out tilde.safetensors --licence LICENSE
"""


def add_parser(commands: Any) -> None:
    """Add the command to the sub-parsers."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "convert",
        help="convert published weights (DeepDesc, LIFT, TILDE, learned orientation) from your own copy",
        description=_DESCRIPTION,
        epilog=_EPILOG,
    )
    parser.add_argument("source", type=Path, metavar="WEIGHTS", help="the published file, or folder of .npy files")
    parser.add_argument(
        "--out", type=Path, required=True, metavar="FILE.safetensors", help="the file to write; must not exist"
    )
    parser.add_argument("--kind", choices=_KINDS, help="what the source is (default: by its name)")
    parser.add_argument("--licence", type=Path, metavar="FILE", help="text of the licence that came with the weights")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Convert, and print the licence."""
    from kornia_lift._io import check_writable, read_text
    from kornia_lift.convert import convert
    from kornia_lift.weights import read_safetensors

    if args.out.suffix != ".safetensors":
        raise CommandError(f"--out {args.out}: expected a file name that ends in .safetensors")
    if args.out.exists():
        raise CommandError(f"--out {args.out} exists: remove it or choose another name")
    check_writable(args.out)
    if args.licence is not None and not args.licence.is_file():
        raise CommandError(f"--licence {args.licence}: expected the file with the text of the licence, there is none")
    try:
        licence = read_text(args.licence) if args.licence is not None else ""
        network = convert(args.source, args.out, args.kind, licence)
    except ValueError as error:
        raise CommandError(str(error)) from error
    _, metadata = read_safetensors(args.out)
    parameters = sum(p.numel() for p in network.parameters())
    print(f"{metadata['kind']}: {type(network).__name__}, {parameters} parameters, from {args.source}: {args.out}")
    print(f"licence: {metadata['licence']}")
    return 0
