"""How well features agree with those of an exported ONNX graph, and with those of another Python environment.

    python -m benchmarks.parts.agreement --with OTHER_PYTHON --out benchmarks/results/parts/agreement.json

``--with`` is the Python of an environment with, for example, kornia 0.8: it needs torch, kornia and numpy, and runs
this repository. Keypoints of both sides are paired by position and scale. The image is that of the speed benchmark.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from kornia_lift import LIFTFeature
from kornia_lift._io import atomic_write

ROOT = Path(__file__).parents[2]
COMMAND = "python -m benchmarks.parts.agreement --with OTHER_PYTHON"
NEAR, ALIKE = 0.5, 1.1  # pixels, factor of the scale: keypoints that are farther apart are different ones
Found = Sequence[NDArray[np.float32]]  # LAFs (N, 2, 3), responses (N,), descriptors (N, D)


@dataclass(frozen=True)
class Export:
    """A feature for images of one size, as ONNX."""

    model: str
    height: int
    width: int
    keypoints: int


EXPORTS = (Export("lift", 180, 240, 150), Export("lift-plus", 480, 640, 1000))
MODELS = (("lift", "float32"), ("lift-plus", "float32"), ("lift-plus", "auto"))


def extract(model: str, precision: str, keypoints: int, gray: NDArray[np.float32]) -> Found:
    """Features of a gray image (H, W) in this process, one thread, empty slots dropped."""
    torch.set_num_threads(1)
    feature = LIFTFeature(keypoints, pretrained=model, precision=precision)  # type: ignore[arg-type]
    with torch.inference_mode():
        return filled([each.numpy() for each in feature(torch.from_numpy(gray)[None, None])])


def filled(found: Sequence[NDArray[np.float32]]) -> Found:
    """Drop the batch dimension and the empty slots."""
    used = (found[0][0] != 0).any((1, 2))
    return [each[0][used] for each in found]


def compare(first: Found, second: Found) -> dict[str, Any]:
    """Pair the keypoints of two extractions and return how far the pairs differ."""
    centres = [found[0][:, :, 2].astype(np.float64) for found in (first, second)]
    scales = [np.sqrt(np.abs(np.linalg.det(found[0][:, :, :2].astype(np.float64)))) for found in (first, second)]
    distance = np.linalg.norm(centres[0][:, None] - centres[1][None], axis=2)
    factor = np.abs(np.log(scales[0][:, None] / scales[1][None]))
    cost = distance / NEAR + factor / np.log(ALIKE)
    there, back = cost.argmin(1), cost.argmin(0)
    mine = np.arange(len(there))
    paired = (back[there] == mine) & (distance[mine, there] < NEAR) & (factor[mine, there] < np.log(ALIKE))
    a, b = mine[paired], there[paired]
    apart = distance[a, b]
    frames, responses, descriptors = (np.abs(one[a] - other[b]) for one, other in zip(first, second, strict=True))
    return {
        "keypoints": [len(first[1]), len(second[1])],
        "paired": int(paired.sum()),
        "in another order": int((a != b).sum()),
        "centres, px": {"largest": float(apart.max()), "share within 0.01": float((apart < 0.01).mean())},
        "frames, px": {"largest": float(frames.max())},
        "responses": {"largest": float(responses.max())},
        "descriptors": {
            "largest difference of a number": float(descriptors.max()),
            "largest distance": float(np.linalg.norm(first[2][a] - second[2][b], axis=1).max()),
        },
    }


def with_onnx(export: Export) -> dict[str, Any]:
    """Export a feature and compare the graph in onnxruntime with the feature, both in float32."""
    from kornia_lift._extras import require
    from kornia_lift.integrations.onnx import export_onnx, run_onnx

    gray = image_of(export.width, export.height)
    feature = LIFTFeature(export.keypoints, pretrained=export.model, precision="float32")
    with tempfile.TemporaryDirectory() as folder:
        path, start = Path(folder) / "feature.onnx", time.process_time()
        export_onnx(feature, path, (export.height, export.width))
        seconds = time.process_time() - start
        nodes = len(require("onnx", extra="onnx").load(str(path)).graph.node)
        found = filled(run_onnx(path, torch.from_numpy(gray)[None, None]))
    expected = extract(export.model, "float32", export.keypoints, gray)
    return {**vars(export), "nodes": nodes, "export, processor s": seconds, **compare(expected, found)}


def with_python(python: str, keypoints: int, size: tuple[int, int]) -> dict[str, Any]:
    """Extract with this Python and another one, each in processes of its own, and compare."""
    content: dict[str, Any] = {"size": list(size), "num_features": keypoints, "models": []}
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        np.save(folder / "image.npy", image_of(*size))
        for model, precision in MODELS:
            found, versions = [], []
            for number, program in enumerate((sys.executable, python)):
                job = [model, precision, str(keypoints), str(folder / "image.npy"), str(folder / f"{number}.npz")]
                command = [program, __file__, "--one", *job]
                done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
                if done.returncode:
                    raise SystemExit(f"{program}: {done.stderr}")
                versions.append(json.loads(done.stdout.splitlines()[-1]))
                with np.load(folder / f"{number}.npz") as file:
                    found.append([file[key] for key in file.files])
            content["versions"] = versions
            content["models"].append({"model": model, "precision": precision, **compare(*found)})
            print(content["models"][-1], flush=True)
    return content


def one(job: Sequence[str]) -> None:
    """Extract in a process that :func:`with_python` started; print the versions."""
    model, precision, keypoints, image, out = job
    np.savez(out, *extract(model, precision, int(keypoints), np.load(image)))
    print(json.dumps({"python": sys.version.split()[0], **{name: version(name) for name in ("torch", "kornia")}}))


def image_of(width: int, height: int) -> NDArray[np.float32]:
    """The picture of the speed benchmark in [0, 1]."""
    from benchmarks.timing.cases import picture  # needs OpenCV, which another environment may lack

    return picture(width, height).astype(np.float32) / np.float32(255)


def main(
    arguments: Sequence[str] | None = None,
    exports: Sequence[Export] = EXPORTS,
    keypoints: int = 300,
    size: tuple[int, int] = (1024, 682),
) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--with", dest="python", metavar="OTHER_PYTHON", help="Python of another environment")
    parser.add_argument("--out", type=Path, help="JSON file for the result")
    parser.add_argument("--one", nargs=5, help=argparse.SUPPRESS)  # of a child process
    args = parser.parse_args(arguments)
    if args.one:
        one(args.one)
        return 0
    from kornia_lift.evaluation.report.results import provenance  # needs kornia 0.9

    content: dict[str, Any] = {"command": COMMAND, "provenance": provenance(ROOT), "onnx": []}
    content["provenance"]["versions"] |= {name: version(name) for name in ("onnx", "onnxruntime", "onnxscript")}
    for export in exports:
        content["onnx"].append(with_onnx(export))
        print(content["onnx"][-1], flush=True)
    if args.python is not None:
        content["another environment"] = with_python(args.python, keypoints, size)
    if args.out is not None:
        with atomic_write(args.out) as path:
            path.write_text(json.dumps(content, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
