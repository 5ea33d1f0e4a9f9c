"""What README and docs tell the reader to type works."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
import torch

from kornia_lift.cli import build_parser

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.M | re.S)

pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def blocks(page: Path, language: str) -> list[str]:
    return [code for found, code in BLOCK.findall(page.read_text()) if found == language]


@pages
def test_links_lead_somewhere(page: Path) -> None:
    text = BLOCK.sub("", page.read_text())
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if not target.startswith(("http", "#", "mailto:")):
            assert (page.parent / target.partition("#")[0]).exists(), f"{page.name} links to {target}"


@pages
def test_python_is_python(page: Path) -> None:
    for code in blocks(page, "python"):
        compile(code, page.name, "exec")


@pages
def test_commands_are_understood(page: Path) -> None:
    """Every `kornia-lift ...` in a bash block is accepted by the parser, with all its options."""
    for code in blocks(page, "bash"):
        for line in code.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            words = words[: words.index("|")] if "|" in words else words
            if "kornia_lift.cli" in words:
                words[words.index("kornia_lift.cli")] = "kornia-lift"
            while "kornia-lift" in words:
                words = words[words.index("kornia-lift") + 1 :]
                if words not in (["--help"], ["--version"]):
                    build_parser().parse_args(words[: words.index("&&")] if "&&" in words else words)


def test_readme_starts_with_three_lines_that_run() -> None:
    """The three lines of use, and the longer example, on a small image."""
    namespace = {name: torch.rand(1, 1, 96, 96) for name in ("image", "gray0", "gray1")}
    first, second = blocks(ROOT / "README.md", "python")[:2]
    assert len([line for line in first.splitlines() if line]) == 3
    exec(first, namespace)
    assert namespace["descriptors"].shape == (1, 1000, 128)
    exec(second, namespace)
    assert namespace["matches"]["keypoints0"].shape[1] == 2


def test_install_commands_are_those_of_ci() -> None:
    commands = blocks(ROOT / "README.md", "bash")
    assert "pip install -c constraints.txt -e '.[cli]' && kornia-lift demo\n" in commands
    test = "pip install -c constraints.txt -e '.[test]' && pytest\n"
    assert test in commands
    assert f'test_command="{test.strip()}"' in (ROOT / ".ci" / "run").read_text()


def test_readme_figures_are_those_of_the_result_file() -> None:
    """Every row of the accuracy table is what benchmarks/results/accuracy.json holds."""
    columns = [
        ("posed", "matching_score"),
        ("posed", "repeatability"),
        ("posed", "pose_auc_10"),
        ("homography", "matching_score"),
        ("homography", "repeatability"),
    ]
    results = json.loads((ROOT / "benchmarks" / "results" / "accuracy.json").read_text())
    summaries = {feature["name"]: feature["summary"] for feature in results["features"]}
    table = (ROOT / "README.md").read_text().partition("## Accuracy\n")[2].partition("\n## ")[0]
    lines = [line for line in table.splitlines() if re.match(r"\| (lift|opencv|aliked)", line)]
    rows = [line.strip("| ").split(" | ") for line in lines]
    assert len(rows) >= 4
    for name, *values in rows:
        measured = [f"{summaries[name][kind]['mean'][measure]['value']:.3f}" for kind, measure in columns]
        assert values == measured, f"README says {values} of {name}, benchmarks/results/accuracy.json {measured}"
