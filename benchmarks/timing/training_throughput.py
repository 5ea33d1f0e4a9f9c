"""How close each training stage comes to the bare forward and backward pass of its network.

For each stage of the paper's recipe: milliseconds per step of the loop's work (drawing the batch, loss, backward,
optimiser step) and of the bare part (the same on a batch in memory). Their ratio is the share of the time in which the
device learns; at least 80 % is wanted. CPU milliseconds are given too, ``cpu_share_of_bare`` without prefetching: on a
machine that others use as well, wall-clock times say little. Data are noise, so that anyone can run it::

    python -m benchmarks.timing.training_throughput --threads 2 --out benchmarks/results/speed/training_throughput.json
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch

from kornia_lift._io import atomic_write
from kornia_lift.networks.descriptor import LIFTDescriptor
from kornia_lift.networks.orientation import LIFTOrientation
from kornia_lift.networks.response import LIFTResponse
from kornia_lift.training.data.store import Observations, Store, StoredImage, encode_jpeg
from kornia_lift.training.paper.descriptor import DescriptorOptions, PaperDescriptorStage
from kornia_lift.training.paper.detector import DetectorOptions, OverlapDetectorStage, PaperDetectorStage
from kornia_lift.training.paper.orientation import OrientationOptions, PaperOrientationStage
from kornia_lift.training.paper.quadruplets import QuadrupletSampler
from kornia_lift.training.stage import MiningStage, Stage


def synthetic_store(images_of_noise: int = 8, points: int = 400, size: int = 768) -> Store:
    """Noise images, each point seen in two of them; what they show does not matter for the time."""
    rng = np.random.default_rng(0)
    jpeg = tuple(encode_jpeg(rng.integers(0, 256, (size, size), dtype=np.uint8)) for _ in range(images_of_noise))
    image = rng.integers(0, images_of_noise, 2 * points)
    tracks = Observations(image, np.tile(np.arange(points), 2), rng.uniform(150, size - 150, (2 * points, 2)),
                    rng.uniform(2, 6, 2 * points), rng.uniform(0, 6.28, 2 * points))  # fmt: skip
    empty = Observations(
        image[:50], np.full(50, -1), rng.uniform(150, size - 150, (50, 2)), np.full(50, 3.0), np.zeros(50)
    )
    images = tuple(StoredImage(f"noise/{i}", "noise", "sfm", file) for i, file in enumerate(jpeg))
    return Store(images, tracks, empty)


def stages(device: str, batch: int | None) -> list[Stage]:
    """The stages, at their default batch sizes or at ``batch`` samples each."""
    data = (QuadrupletSampler(synthetic_store(), device),) * 2
    response, orientation = LIFTResponse(False).to(device), LIFTOrientation(False).to(device)
    descriptor = LIFTDescriptor(False, normalize=False).to(device)
    # the frozen stages freeze the shared descriptor: give the first stage its own
    own = LIFTDescriptor(False, normalize=False).to(device)
    frozen = LIFTOrientation(False).to(device)
    pairs = DescriptorOptions() if batch is None else DescriptorOptions(pairs=batch)
    rotated = OrientationOptions() if batch is None else OrientationOptions(pairs=batch)
    four = DetectorOptions() if batch is None else DetectorOptions(quadruplets=max(1, batch // 4))
    return [
        PaperDescriptorStage(own, *data, pairs),
        PaperOrientationStage(orientation, descriptor, *data, rotated),
        OverlapDetectorStage(response, *data, four),
        PaperDetectorStage(LIFTResponse(False).to(device), frozen, descriptor, *data, four),
    ]


def median_ms(step: Callable[[int], None], device: str, repeats: int) -> tuple[float, float]:
    """Median time of ``step`` in milliseconds, by the clock and of the CPU, after a warm-up."""
    times = []
    for number in range(repeats + 1):
        start = time.perf_counter(), time.process_time()
        step(number)
        if device.startswith("cuda"):
            torch.cuda.synchronize()
        times.append((1000 * (time.perf_counter() - start[0]), 1000 * (time.process_time() - start[1])))
    wall, cpu = zip(*times[1:], strict=True)
    return statistics.median(wall), statistics.median(cpu)


def measure(stage: Stage, device: str, repeats: int) -> dict[str, Any]:
    """Time the bare pass, the drawing of a batch, and the whole step with and without prefetching."""
    optimizer = torch.optim.Adam(stage.network.parameters())
    stage.network.train()

    def draw(number: int) -> dict[str, torch.Tensor]:
        return stage.batch(torch.Generator().manual_seed(number), number)

    def learn(batch: dict[str, torch.Tensor]) -> None:
        batch = {key: value.to(device) for key, value in batch.items()}
        optimizer.zero_grad(set_to_none=True)
        loss, _ = stage.loss(stage.mine(batch) if isinstance(stage, MiningStage) else batch)
        loss.backward()
        optimizer.step()

    held = draw(0)
    bare, bare_cpu = median_ms(lambda _: learn(held), device, repeats)
    drawing, drawing_cpu = median_ms(lambda n: draw(n) and None, device, repeats)
    whole, whole_cpu = median_ms(lambda n: learn(draw(n)), device, repeats)
    with ThreadPoolExecutor(1) as pool:
        waiting = [pool.submit(draw, 0)]

        def ahead(number: int) -> None:
            batch = waiting[0].result()
            waiting[0] = pool.submit(draw, number + 1)
            learn(batch)

        prefetched, _ = median_ms(ahead, device, repeats)
    samples = len(next(iter(held.values())))
    return {
        "samples": samples,
        "bare_ms": bare,
        "draw_ms": drawing,
        "step_ms": whole,
        "prefetched_ms": prefetched,
        "bare_cpu_ms": bare_cpu,
        "draw_cpu_ms": drawing_cpu,
        "step_cpu_ms": whole_cpu,
        "cpu_share_of_bare": bare_cpu / whole_cpu,
        "share_of_bare": bare / min(whole, prefetched),
        "samples_per_s": 1000 * samples / min(whole, prefetched),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--batch", type=int, help="samples per step, by default those of each stage")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    results = {}
    for stage in stages(args.device, args.batch):
        results[stage.name] = measure(stage, args.device, args.repeats)
        r = results[stage.name]
        print(
            f"{stage.name:18s} {r['samples']:4d} samples  bare {r['bare_ms']:8.1f} ms  draw {r['draw_ms']:7.1f} ms  "
            f"step {r['step_ms']:8.1f} ms  prefetched {r['prefetched_ms']:8.1f} ms  {r['share_of_bare']:.0%} of bare, "
            f"of the CPU {r['cpu_share_of_bare']:.0%}"
        )
    if args.out is not None:
        metadata = {
            "device": args.device,
            "threads": args.threads,
            "torch": torch.__version__,
            "repeats": args.repeats,
            "batch": args.batch,
        }
        with atomic_write(args.out) as temporary:
            temporary.write_text(json.dumps({"metadata": metadata, "results": results}, indent=2) + "\n")


if __name__ == "__main__":
    main()
