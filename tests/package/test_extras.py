"""Every package that the code asks for is in the extra that its error message names."""

from __future__ import annotations

import ast
import configparser
import re
import subprocess
import sys

import pytest

from tests.helpers.repository import ROOT

#: What a package is called where it is installed, if not as it is imported.
DISTRIBUTION = {"cv2": "opencv-python-headless", "PIL": "pillow", "skimage": "scikit-image"}


def extras() -> dict[str, set[str]]:
    """Names of the packages of each extra, those of the extras that it includes too."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    direct = {key: value.split("\n") for key, value in config["options.extras_require"].items()}
    found: dict[str, set[str]] = {}
    for key, lines in direct.items():
        found[key] = {re.split(r"[<>=]", line)[0].strip() for line in lines if line and "[" not in line}
        for included in re.findall(r"kornia_lift\[(.*?)\]", "\n".join(lines)):
            for name in included.split(","):
                assert name in found, f"[{key}] includes [{name}], which is not defined before it"
                found[key] |= found[name]
    return found


def required() -> list[tuple[str, str, str]]:
    """(file, package, extra) of every call of `require` in the package."""
    calls = []
    for path in sorted((ROOT / "kornia_lift").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "require":
                words = {word.arg: word.value for word in node.keywords}
                if "extra" not in words:  # a tool that no extra brings: the message says how to get it
                    assert "hint" in words, f"{path}:{node.lineno} names neither an extra nor how to get the package"
                    continue
                module, extra = ast.literal_eval(node.args[0]), ast.literal_eval(words["extra"])
                calls.append((path.relative_to(ROOT).as_posix(), module.partition(".")[0], extra))
    return calls


def test_the_code_asks_for_something() -> None:
    assert {"cv2", "h5py", "PIL"} <= {package for _, package, _ in required()}


@pytest.mark.parametrize(("file", "package", "extra"), required())
def test_extra_brings_the_package(file: str, package: str, extra: str) -> None:
    if package != "torch":
        assert DISTRIBUTION.get(package, package) in extras().get(extra, set()), f"{file}: [{extra}] lacks {package}"


def test_tests_have_all_extras() -> None:
    asked = {DISTRIBUTION.get(package, package) for _, package, _ in required()} - {"torch"}
    assert asked <= extras()["test"]
    assert extras()["test"] <= extras()["dev"]


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGTERM")
@pytest.mark.parametrize("when", ["before", "after"])
def test_packages_take_no_signals(when: str) -> None:
    """A handler that is set before or after the import of pycolmap is called, and no stack trace is printed."""
    pytest.importorskip("pycolmap")
    handler = "signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(7)); "
    program = (
        "import signal, sys; from kornia_lift._extras import require; "
        f"{handler if when == 'before' else ''}require('pycolmap', extra='colmap'); "
        f"{handler if when == 'after' else ''}signal.raise_signal(signal.SIGTERM)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (7, "")
