"""What README and docs tell the reader to type works."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from kornia_lift.cli import build_parser
from tests.helpers.pages import BLOCK, blocks
from tests.helpers.repository import ROOT, load_script

ADDRESS = load_script("docs/_ext/address.py")
HOME = (f"{ADDRESS.FILES}/", f"{ADDRESS.PICTURES}/")
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]

pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)

#: Folders that the source distribution leaves out.
REPOSITORY_ONLY = ("experiments", ".ci")


def leads_somewhere(path: Path) -> bool:
    """Whether there is such a file; in an unpacked source distribution, or it lies in a folder that this leaves out."""
    inside = path.resolve().relative_to(ROOT.resolve()).parts
    return path.exists() or (inside[0] in REPOSITORY_ONLY and not (ROOT / inside[0]).exists())


@pages
def test_links_lead_somewhere(page: Path) -> None:
    text = BLOCK.sub("", page.read_text())
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith(HOME):  # the README is also shown where relative links lead nowhere
            inside = target.split("/main/", 1)[1].partition("#")[0]
            assert leads_somewhere(ROOT / inside), f"{page.name} links to {target}"
        elif not target.startswith(("http", "#", "mailto:")):
            assert page.name != "README.md", f"README links to {target}, which an index cannot show"
            assert leads_somewhere(page.parent / target.partition("#")[0]), f"{page.name} links to {target}"


@pages
def test_named_files_exist(page: Path) -> None:
    """Tests, benchmarks and modules of the package that a page names by path."""
    for name in re.findall(
        r"(?<![\w/])((?:tests|benchmarks|scripts|kornia_lift)/[\w/.-]+\.(?:py|toml|md|json))\b", page.read_text()
    ):
        assert (ROOT / name).exists(), f"{page.name} names {name}"


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
            if "kornia_lift" in words:  # torchrun -m kornia_lift ...
                words[words.index("kornia_lift")] = "kornia-lift"
            while "kornia-lift" in words:
                words = words[words.index("kornia-lift") + 1 :]
                if words not in (["--help"], ["--version"]):
                    build_parser().parse_args(words[: words.index("&&")] if "&&" in words else words)


#: Outlines that a reader completes, and what takes a minute: they are compiled only. Page, and how the block begins.
OUTLINES = {
    ("integrations.md", "export_onnx(LIFTFeature(150)"),
    ("evaluation.md", "from kornia_lift.scenes.posed"),
    ("training.md", "from kornia.feature import SIFTDescriptor"),
    ("training.md", "class MyStage"),
    ("integrations.md", "import runpy, sys"),  # runs another program on a folder of images
}
#: Packages of other programs: a block that imports one is run where it is installed.
PROGRAMS = {"hloc", "gluefactory", "lightglue", "vismatch", "deep_image_matching", "kornia_moons", "onnxscript"}


def prepare(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put the files that the pages name into a folder, and go there."""
    from PIL import Image
    from safetensors.torch import save_file

    from kornia_lift import LIFTDescriptor
    from kornia_lift.convert import LearnedOrientation, TILDEResponse
    from tests.helpers.pictures import texture

    monkeypatch.chdir(folder)
    for name in ("left.jpg", "right.jpg"):
        Image.fromarray((texture(150, 200)[0, 0] * 255).byte().numpy()).save(folder / name)
    tilde = TILDEResponse()
    for parameter in tilde.parameters():
        torch.nn.init.normal_(parameter)
    settings = {"num_sum": 4, "num_max": 4, "channels": 6, "size": 21, "rank": 4}
    made: list[tuple[str, str, str, torch.nn.Module, dict[str, int]]] = [
        ("tilde", "tilde", "response", tilde, settings),
        ("orientation", "learned-orientation", "orientation", LearnedOrientation(), {}),
        ("deepdesc", "deepdesc", "descriptor", LIFTDescriptor(pretrained=False, mean=0.5, std=0.25), {}),
    ]
    for name, kind, part, network, options in made:
        tensors = {f"{part}.{key}": value.clone() for key, value in network.state_dict().items()}
        metadata = {"kind": kind, "settings": json.dumps(options)}
        save_file(tensors, folder / f"{name}.safetensors", metadata)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the exporter of ONNX
@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")], ids=lambda page: page.name)
def test_python_blocks_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As pasted, one after the other."""
    for package in ("skimage", "cv2", "PIL", "safetensors"):
        pytest.importorskip(package)
    from kornia.feature import HardNet, KeyNetDetector

    original: Callable[..., None] = HardNet.__init__
    keynet: Callable[..., None] = KeyNetDetector.__init__

    def untrained(self: Any, pretrained: bool = True) -> None:  # kornia would download its weights
        original(self, False)

    def untrained_keynet(self: Any, pretrained: bool = True, *args: Any, **kwargs: Any) -> None:
        keynet(self, False, *args, **kwargs)

    monkeypatch.setattr(HardNet, "__init__", untrained)
    monkeypatch.setattr(KeyNetDetector, "__init__", untrained_keynet)
    prepare(tmp_path, monkeypatch)
    namespace: dict[str, Any] = {"__name__": "__main__"}
    for code in blocks(page, "python"):
        if any(page.name == name and code.startswith(start) for name, start in OUTLINES):
            continue
        try:
            exec(compile(code, page.name, "exec"), namespace)
        except ImportError as error:
            if (error.name or "").partition(".")[0] not in {*PROGRAMS, "torch"}:  # too old for an export
                raise
    if page.name == "README.md":
        assert (tmp_path / "matches.jpg").stat().st_size > 10_000
        assert namespace["descriptors"].shape == (1, 2000, 128)
        assert not namespace["descriptors"].requires_grad
        assert namespace["match"].verified.sum() > 500
        assert len(namespace["matches"]["keypoints0"]) > 500


def test_install_commands_are_those_of_ci() -> None:
    commands = blocks(ROOT / "README.md", "bash")
    assert "pip install -c constraints.txt -e '.[cli]' && kornia-lift demo\n" in commands
    test = "pip install -c constraints.txt -e '.[test]' && pytest\n"
    assert test in commands
    if not (ROOT / ".ci").exists():
        pytest.skip("the source distribution has no .ci")
    assert f'test_command="{test.strip()}"' in (ROOT / ".ci" / "run").read_text()


def test_readme_figures_are_those_of_the_result_file() -> None:
    """Every row of the accuracy table is what benchmarks/results/accuracy/accuracy.json holds."""
    columns = [
        ("posed", "correct_matches", ".0f"),
        ("posed", "coverage", ".2f"),
        ("posed", "pose_auc_5", ".3f"),
        ("homography", "correct_matches", ".0f"),
        ("homography", "coverage", ".2f"),
        ("homography", "homography_auc_1", ".3f"),
        ("homography", "homography_auc_5", ".3f"),
        ("posed", "crowding", ".2f"),
    ]
    results = json.loads((ROOT / "benchmarks" / "results" / "accuracy" / "accuracy.json").read_text())
    summaries = {feature["name"]: feature["summary"] for feature in results["features"]}
    table = (ROOT / "README.md").read_text().partition("## Accuracy\n")[2].partition("\n## ")[0]
    lines = [line for line in table.splitlines() if re.match(r"\| (lift|opencv|aliked|xfeat|disk|keynet)", line)]
    rows = [line.strip("| ").split(" | ") for line in lines]
    assert len(rows) >= 4
    for name, *values in rows:
        measured = [format(summaries[name][kind]["mean"][measure]["value"], form) for kind, measure, form in columns]
        assert values == measured, f"README says {values} of {name}, accuracy.json {measured}"


def test_lines_of_the_table_of_programs_are_those_of_the_examples() -> None:
    page = (ROOT / "docs" / "integrations.md").read_text()
    sections = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", page, re.M | re.S))
    rows = re.findall(r"^\| \[([^\]]+)\]\(#([\w-]+)\).*?\| (\d+) \|", page, re.M)
    assert len(rows) >= 10
    by_anchor = {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-"): text for title, text in sections.items()}
    for name, anchor, lines in rows:
        assert anchor in by_anchor, f"the table links to #{anchor}, which has no section"
        _, code = BLOCK.findall(by_anchor[anchor])[0]
        assert len([line for line in code.splitlines() if line.strip()]) == int(lines), name


def test_table_of_models_is_made_of_the_result_files() -> None:
    pytest.importorskip("matplotlib")
    table = load_script("benchmarks/pages/models.py").table()
    assert table in (ROOT / "docs" / "models.md").read_text(), "run python -m benchmarks.pages.models"
