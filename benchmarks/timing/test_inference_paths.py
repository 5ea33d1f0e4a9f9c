"""The inference paths are faster than the plain networks, measured side by side; imports are quick.

    pytest benchmarks/timing/test_inference_paths.py

Speed limits depend on the machine, so they are not part of the package's tests.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest
import torch

from benchmarks.timing.inference_paths import DEFINED, Inputs, Paths, paths_of_lift
from benchmarks.timing.turns import one_thread, take_turns

# the best call of each: other programs hardly matter. Where this was written the inference paths take 0.2 to 0.5 of
# the time
ROUNDS = 5
LIMIT = 0.9
NAMES = ("lift: descriptor", "lift: orientation", "lift: response", "patches, with their pyramid")


@pytest.fixture(scope="module")
def paths() -> Iterator[dict[str, Paths]]:
    with one_thread(), torch.inference_mode():
        yield {each.name: each for each in paths_of_lift(Inputs.of("lift", (800, 600), 200))}


@pytest.mark.parametrize("name", NAMES)
def test_inference_path(paths: dict[str, Paths], name: str) -> None:
    calls = {key: paths[name].calls[key] for key in (DEFINED, "float32")}
    with torch.inference_mode():
        seconds = take_turns(calls, ROUNDS)
    assert min(seconds["float32"]) < LIMIT * min(seconds[DEFINED])


def test_every_path_is_tested(paths: dict[str, Paths]) -> None:
    assert set(paths) == set(NAMES)


def test_import_adds_little_to_kornia() -> None:
    """At most 150 ms on top of `import kornia.feature`; the best of several runs, since machines are busy."""
    code = (
        "import kornia.feature, time; start = time.process_time(); from kornia_lift import LIFTFeature; "
        "print(time.process_time() - start)"
    )
    done = (subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True) for _ in range(5))
    assert min(float(each.stdout) for each in done) < 0.15
