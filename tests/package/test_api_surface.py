"""The public names are a promise: a change of them is made on purpose, here too."""

from __future__ import annotations

import inspect
import subprocess
import sys
from types import ModuleType

import pytest

import kornia_lift

PUBLIC = [
    "ImageFileError",
    "LIFTDescriptor",
    "LIFTDetector",
    "LIFTFeature",
    "LIFTOrientation",
    "LIFTResponse",
    "ScaleSpaceConfig",
    "__version__",
    "draw_keypoints",
    "draw_matches",
    "load_image",
    "match_images",
    "mix_features",
]


def test_public_names() -> None:
    assert sorted(kornia_lift.__all__) == PUBLIC
    visible = {name for name in dir(kornia_lift) if not name.startswith("_")}
    visible = {name for name in visible if not isinstance(getattr(kornia_lift, name), ModuleType)}
    assert visible | {"__version__"} == set(PUBLIC)
    with pytest.raises(AttributeError, match="no attribute 'SIFT'"):
        kornia_lift.SIFT  # noqa: B018


@pytest.mark.parametrize("name", [name for name in PUBLIC if not name.startswith("_")])
def test_public_names_are_documented(name: str) -> None:
    public = getattr(kornia_lift, name)
    text = inspect.getdoc(public) or ""
    assert len(text.splitlines()) > 3
    if callable(public) and not (isinstance(public, type) and issubclass(public, Exception)):
        for parameter in inspect.signature(public).parameters:
            assert f"{parameter}:" in text or parameter in ("args", "kwargs"), f"{name}: {parameter} is not documented"


def test_package_is_typed() -> None:
    from importlib.resources import files

    assert (files("kornia_lift") / "py.typed").is_file()


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


EXTRAS = [
    "PIL", "cv2", "h5py", "matplotlib", "onnx", "poselib", "pycolmap", "safetensors", "scipy", "skimage", "tensorboard",
    "tqdm",
]  # fmt: skip


def test_import_needs_the_core_packages_only() -> None:
    """Every extra is imported by the function that uses it."""
    code = f"""
import sys, kornia.feature
before = set(sys.modules)
import kornia_lift
print(sorted((set(sys.modules) - before) & set({EXTRAS})))
"""
    assert run(code) == "[]\n"


def test_every_room_can_be_entered_without_any_extra() -> None:
    """`kornia-lift --help` and reading the source must work in a bare installation."""
    run(
        f"import sys; sys.modules.update(dict.fromkeys({EXTRAS}))\n"
        "import kornia_lift.cli, kornia_lift.convert, kornia_lift.evaluation, kornia_lift.files\n"
        "import kornia_lift.integrations, kornia_lift.reconstruction, kornia_lift.training"
    )


def test_subpackages_resolve_without_a_further_import() -> None:
    run(
        "import kornia_lift\n"
        "kornia_lift.matching.match_pair, kornia_lift.viz.draw_matches, kornia_lift.training, kornia_lift.evaluation\n"
        "kornia_lift.convert.load_deepdesc, kornia_lift.integrations, kornia_lift.files.FeatureFile"
    )


def test_help_needs_no_torch() -> None:
    code = (
        "import sys, kornia_lift.cli\n"
        "try: kornia_lift.cli.main(['--help'])\n"
        "except SystemExit: pass\n"
        "print('modules', sorted({'torch', 'kornia', 'numpy'} & set(sys.modules)))"
    )
    assert run(code).endswith("modules []\n")
