"""A device that this machine does not have is refused early, in one form, wherever a device can be given."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import kornia_lift
from kornia_lift import LIFTFeature
from kornia_lift._checks import check_device, devices_here
from kornia_lift._extras import MissingExtraError
from kornia_lift.extraction import ExtractionOptions
from kornia_lift.feature import LFNetFeature
from kornia_lift.matching import match_tensors
from kornia_lift.training.compact.byte_patches import BankPatches, patches_from
from kornia_lift.training.compact.recipe import CompactRecipe
from kornia_lift.training.correspondences.recipe import CorrespondenceRecipe
from kornia_lift.training.data.bank import ImageBank
from kornia_lift.training.folder_run import FolderRun, train_from_folders
from kornia_lift.training.held_out.referee import Referee
from kornia_lift.training.lfnet.recipe import LFNetRecipe
from kornia_lift.training.modern.recipe import ModernRecipe
from kornia_lift.training.paper.atlas import ImageAtlas
from kornia_lift.training.paper.recipe import PaperRecipe
from kornia_lift.training.run import RunConfig, train
from kornia_lift.training.tilde.recipe import TildeRecipe
from kornia_lift.training.warped.crops import crop_bank

NOWHERE = Path("no folder")
IMAGE = torch.zeros(1, 1, 40, 40)
PIXELS = [torch.zeros(40, 40, dtype=torch.uint8)]
#: Each with nothing else that is of use: the device is checked before anything is read or computed.
PLACES: dict[str, Callable[[str], object]] = {
    "LIFTFeature": lambda device: LIFTFeature(10, device=device),
    "LFNetFeature": lambda device: LFNetFeature(10, device=device),
    "match_tensors": lambda device: match_tensors(torch.nn.Identity(), IMAGE, IMAGE, device=device),
    "ExtractionOptions": lambda device: ExtractionOptions(device=device),  # type: ignore[arg-type]
    "PaperRecipe": lambda device: PaperRecipe(None, NOWHERE, device=device),  # type: ignore[arg-type]
    "ModernRecipe": lambda device: ModernRecipe(None, NOWHERE, device=device),  # type: ignore[arg-type]
    "CompactRecipe": lambda device: CompactRecipe(None, NOWHERE, device=device),  # type: ignore[arg-type]
    "LFNetRecipe": lambda device: LFNetRecipe(None, NOWHERE, device=device),  # type: ignore[arg-type]
    "CorrespondenceRecipe": lambda device: CorrespondenceRecipe((), (), NOWHERE, device=device),
    "TildeRecipe": lambda device: TildeRecipe((), None, NOWHERE, device=device),  # type: ignore[arg-type]
    "Referee": lambda device: Referee(None, NOWHERE, device=device),  # type: ignore[arg-type]
    "RunConfig": lambda device: train(RunConfig("paper", (NOWHERE,), device=device), NOWHERE),
    "FolderRun": lambda device: train_from_folders(FolderRun("tilde", (NOWHERE,), device=device), NOWHERE),
    "ImageAtlas": lambda device: ImageAtlas(PIXELS, device),
    "ImageBank": lambda device: ImageBank(PIXELS, device, lambda level: level),
    "BankPatches": lambda device: BankPatches(PIXELS, device),
    "patches_from": lambda device: patches_from(PIXELS, device),
    "crop_bank": lambda device: crop_bank(PIXELS, device),
}
#: They give it to one of those before they use it.
HAND_ON = {"Recipe", "QuadrupletSampler", "ViewPairs", "WarpedCrops", "LIFTMatcher"}


@pytest.mark.parametrize("name", sorted(PLACES))
@pytest.mark.parametrize("device", ["cuda:99", "toaster"])
def test_it_is_refused_early(name: str, device: str) -> None:
    with pytest.raises(ValueError, match=f"expects a device of this machine .*cpu.*, got '{device}': ") as refused:
        PLACES[name](device)
    assert "\n" not in str(refused.value)


def test_no_place_is_forgotten() -> None:
    """Whatever has an argument ``device`` stands above."""
    found = set()
    for info in pkgutil.walk_packages(kornia_lift.__path__, "kornia_lift."):
        if info.name.endswith("__main__") or ".cli" in info.name:  # tests/cli has the commands
            continue
        try:
            module = importlib.import_module(info.name)
        except MissingExtraError:
            continue
        for name, value in vars(module).items():
            if callable(value) and getattr(value, "__module__", None) == info.name and not name.startswith("_"):
                try:
                    parameters = inspect.signature(value).parameters
                except ValueError:  # of builtins
                    continue
                if "device" in parameters:
                    found.add(name)
    assert found - HAND_ON - {"check_device"} == set(PLACES)


@pytest.mark.skipif(torch.version.cuda is not None or torch.version.hip is not None, reason="a build with CUDA")
@pytest.mark.parametrize("device", ["cuda", "cuda:0", torch.device("cuda", 1)])
def test_a_build_without_cuda_says_where_others_are(device: str | torch.device) -> None:
    with pytest.raises(ValueError, match="LIFTFeature expects .* built without CUDA, https://pytorch.org/get-started"):
        LIFTFeature(10, device=device)


@pytest.mark.parametrize("device", [True, 1.5, b"cpu", ["cpu"]])
def test_what_is_no_name_of_a_device_is_refused(device: object) -> None:
    """``True`` in the place of the device is an argument in the wrong order, not the second GPU."""
    with pytest.raises(TypeError, match="LIFTFeature expects a device such as 'cpu' or 'cuda:0', got "):
        LIFTFeature(10, False, device)  # type: ignore[arg-type]


def test_devices_that_are_here() -> None:
    assert devices_here()[0] == "cpu"
    for name in devices_here():
        assert check_device(name, "test") == torch.device(name)
    assert check_device("auto", "test", auto=True).type in ("cpu", "cuda")
    with pytest.raises(ValueError, match="got 'auto'"):
        check_device("auto", "test")


def test_meta_holds_no_values() -> None:
    """Networks can be built there, nothing can be computed."""
    assert check_device("meta", "test", meta=True).type == "meta"
    with pytest.raises(ValueError, match="got 'meta'"):
        check_device("meta", "test")


def test_a_device_without_memory_is_not_a_missing_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(torch, "ones", full)
    with pytest.raises(torch.OutOfMemoryError):
        check_device("cpu", "test")
