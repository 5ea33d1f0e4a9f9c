"""Put a weight file together: ``python scripts/assemble_weights.py RESPONSE ORIENTATION DESCRIPTOR --out FILE``.

``--localization SOURCE`` adds the network that corrects keypoints, which compact models may have.

Each part comes from a shipped model (by name), a ``.safetensors`` file, a run or the folder of one of its stages, or a
checkpoint (``.pt``): of a run the best weights of the last stage that trains the part, of a checkpoint the averaged
ones where it has them. The networks must fit each other, which is checked by loading the result.
``--install lift-plus`` replaces the shipped file, and its checksum in the registry.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from pathlib import Path

from torch import Tensor

from kornia_lift import LIFTFeature
from kornia_lift._io import atomic_write
from kornia_lift.training.loop.checkpoint import BEST, load_checkpoint
from kornia_lift.weights import WeightFileError, available_models, load_tensors, network_family
from kornia_lift.weights._registry import FOLDER, MODELS
from kornia_lift.weights._safetensors import write_safetensors

PARTS = ("response", "orientation", "descriptor")
#: Stages whose folders hold weights of a part, the last one first.
STAGES = {
    "response": ("matchable", "repeatable", "response"),
    "orientation": ("orientation",),
    "descriptor": ("refine", "descriptor"),
    "localization": ("localization",),
}


def read_part(source: str, part: str) -> tuple[dict[str, Tensor], str | None]:
    """Return the tensors of a part, without its prefix, and the family that a weight file names."""
    path = Path(source)
    if source in available_models() or path.suffix == ".safetensors":
        tensors, _ = load_tensors(source)
        found = {n.removeprefix(f"{part}."): t for n, t in tensors.items() if n.startswith(f"{part}.")}
        return found, network_family(source)
    if path.is_dir():
        folders = [path, *(path / stage for stage in STAGES[part])]
        files = [folder / BEST for folder in folders if (folder / BEST).is_file()]
        if not files:
            raise SystemExit(f"{path} holds no {BEST} for the {part}, looked in {', '.join(map(str, folders))}")
        path = files[0]
    elif not path.is_file():
        raise SystemExit(f"{source} is no shipped model ({', '.join(available_models())}), file or folder")
    state = load_checkpoint(path)
    weights = state["network"]
    if state.get("averaged") is not None:  # of a run's last checkpoint, which holds both
        weights = {n.removeprefix("module."): t for n, t in state["averaged"].items() if n.startswith("module.")}
    # as save_model: biases and buffers keep their dtype
    large = {name for name, tensor in weights.items() if tensor.is_floating_point() and tensor.dim() > 1}
    return {name: tensor.half() if name in large else tensor for name, tensor in weights.items()}, None


def assemble(sources: dict[str, str], out: Path, family: str | None, notes: dict[str, str]) -> str:
    """Write the file, check that it loads, and return its checksum."""
    tensors: dict[str, Tensor] = {}
    families: list[str] = []
    for part, source in sources.items():
        found, named = read_part(source, part)
        tensors |= {f"{part}.{name}": tensor for name, tensor in found.items()}
        if not found:
            raise SystemExit(f"{source} has no {part}")
        # a response serves every family
        families += [named] if named and part != "response" else []
    if family is None and len(set(families)) != 1:
        raise SystemExit(f"the networks of these sources are {families or 'not named'}: say which by --family")
    family = family or families[0]
    write_safetensors(out, tensors, ({} if family == "lift" else {"networks": family}) | notes)
    try:
        LIFTFeature(pretrained=out)
    except WeightFileError:
        out.unlink()
        raise
    return hashlib.sha256(out.read_bytes()).hexdigest()


def install(file: Path, digest: str, name: str) -> None:
    """Replace the file of a shipped model and its checksum."""
    model, registry = MODELS[name], FOLDER / "_registry.py"
    text = registry.read_text(encoding="utf-8")
    if text.count(model.sha256) != 1:
        raise SystemExit(f"{registry} does not name the checksum of {name} once")
    for target, content in ((FOLDER / model.file, file.read_bytes()), (registry, None)):
        with atomic_write(target) as temporary:
            temporary.write_bytes(text.replace(model.sha256, digest).encode() if content is None else content)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for part in PARTS:
        parser.add_argument(part, help=f"where the {part} comes from")
    parser.add_argument("--localization", metavar="SOURCE", help="where the localization comes from; default: none")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--family", choices=("lift", "compact"), help="where no source is a weight file")
    parser.add_argument("--note", action="append", default=[], metavar="KEY=TEXT", help="for the header of the file")
    parser.add_argument("--install", choices=available_models(), help="shipped model to replace")
    args = parser.parse_args(arguments)
    notes = dict(note.split("=", 1) for note in args.note)
    sources = {part: getattr(args, part) for part in PARTS}
    if args.localization is not None:
        sources["localization"] = args.localization
    digest = assemble(sources, args.out, args.family, notes)
    print(f"{digest}  {args.out}")
    if args.install:
        install(args.out, digest, args.install)
    return 0


if __name__ == "__main__":
    sys.exit(main())
