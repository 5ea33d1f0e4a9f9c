"""The part of other packages that our extractors rely on, written from their interfaces, for where they are not there.

Each ``*_package`` function puts its modules into ``sys.modules`` unless the real package can be imported.
"""

from __future__ import annotations

import importlib.util
import inspect
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn

_PACKAGES = ("hloc", "gluefactory", "lightglue", "vismatch", "deep_image_matching")
_INSTALLED = {package for package in _PACKAGES if importlib.util.find_spec(package) is not None}


def is_real(package: str) -> bool:
    """Whether the package itself is installed."""
    return package in _INSTALLED


def provide(monkeypatch: pytest.MonkeyPatch, **modules: dict[str, Any]) -> None:
    """Put modules, named with ``__`` for dots, with these attributes into ``sys.modules``."""
    for key, attributes in modules.items():
        name = key.replace("__", ".")
        module = ModuleType(name)
        module.__path__ = []  # a package: others may lie below it
        for attribute, value in attributes.items():
            setattr(module, attribute, value)
        monkeypatch.setitem(sys.modules, name, module)
        parent, _, child = name.rpartition(".")
        if parent:
            monkeypatch.setattr(sys.modules[parent], child, module, raising=False)


class HlocModel(nn.Module):
    """hloc's ``BaseModel``: configuration over defaults, checked inputs."""

    default_conf: ClassVar[dict[str, Any]] = {}
    required_inputs: ClassVar[list[str]] = []

    def __init__(self, conf: dict[str, Any]) -> None:
        super().__init__()
        self.conf = {**self.default_conf, **conf}
        self._init(self.conf)

    def forward(self, data: dict[str, Tensor]) -> dict[str, Tensor]:
        assert all(key in data for key in self.required_inputs)
        return self._forward(data)


def the_class_of(root: ModuleType, name: str, base: type) -> type:
    """Load an extractor as hloc and deep-image-matching do: the only class that the module itself defines."""
    path = f"{root.__name__}.{name}"
    module = __import__(path, fromlist=[""])
    found = [c for _, c in inspect.getmembers(module, inspect.isclass) if c.__module__ == path and issubclass(c, base)]
    assert len(found) == 1
    return found[0]


def hloc_package(monkeypatch: pytest.MonkeyPatch) -> None:
    if not is_real("hloc"):
        provide(
            monkeypatch,
            hloc={},
            hloc__utils={},
            hloc__utils__base_model={"BaseModel": HlocModel},
            hloc__extractors={},
            hloc__extract_features={"confs": {}},
        )


class Conf(dict):
    """OmegaConf's access by attribute."""

    __getattr__ = dict.__getitem__


class GlueFactoryModel(nn.Module):
    """glue-factory's ``BaseModel``: merged configuration, checked keys, and whether weights were loaded."""

    default_conf: ClassVar[dict[str, Any]] = {}
    required_data_keys: ClassVar[list[str]] = []
    are_weights_initialized = False

    def __init__(self, conf: dict[str, Any]) -> None:
        super().__init__()
        self.conf = Conf({"trainable": True, **self.default_conf, **conf})
        self._init(self.conf)

    def forward(self, data: dict[str, Tensor]) -> dict[str, Tensor]:
        assert all(key in data for key in self.required_data_keys)
        return self._forward(data)

    def set_initialized(self, to: bool = True) -> None:
        self.are_weights_initialized = to

    def is_initialized(self) -> bool:
        return self.are_weights_initialized


def gluefactory_package(monkeypatch: pytest.MonkeyPatch) -> None:
    if not is_real("gluefactory"):
        provide(
            monkeypatch,
            gluefactory={},
            gluefactory__models={},
            gluefactory__models__base_model={"BaseModel": GlueFactoryModel},
        )


class LightGlueExtractor(nn.Module):
    """LightGlue's ``Extractor``: resizes, and brings back the keypoints."""

    def __init__(self, **conf: Any) -> None:
        super().__init__()
        self.conf = SimpleNamespace(**{**self.default_conf, **conf})

    @torch.no_grad()
    def extract(self, img: Tensor, **conf: Any) -> dict[str, Tensor]:
        img = img[None] if img.dim() == 3 else img
        size = img.new_tensor([img.shape[-1], img.shape[-2]])
        zoom = {**self.preprocess_conf, **conf}["resize"] / float(size.max())
        small = nn.functional.interpolate(
            img, size=[round(side * zoom) for side in img.shape[-2:]], mode="bilinear", antialias=True
        )
        found = self.forward({"image": small})
        found["image_size"] = size[None]
        scales = img.new_tensor([small.shape[-1], small.shape[-2]]) / size
        found["keypoints"] = (found["keypoints"] + 0.5) / scales - 0.5
        return found


def lightglue_package(monkeypatch: pytest.MonkeyPatch) -> None:
    if not is_real("lightglue"):
        provide(monkeypatch, lightglue={}, lightglue__utils={"Extractor": LightGlueExtractor})


class VismatchMatcher(nn.Module):
    """vismatch's ``BaseMatcher``: seven results, their types and shapes checked."""

    def __init__(self, device: str = "cpu", **kwargs: Any) -> None:
        super().__init__()
        self.device = device
        self.ransac_iters = kwargs.get("ransac_iters", 2000)

    @torch.inference_mode()
    def forward(self, img0: Tensor, img1: Tensor) -> dict[str, Any]:
        names = [f"{kind}{i}" for kind in ("matched_kpts", "all_kpts", "all_desc") for i in (0, 1)]
        names.append("matched_confidences")
        outputs = self._forward(img0.to(self.device), img1.to(self.device))
        assert len(outputs) == 7
        assert all(out is None or isinstance(out, (np.ndarray, Tensor)) for out in outputs)
        result = {n: None if out is None else np.asarray(out) for n, out in zip(names, outputs, strict=True)}
        assert all(result[name].ndim == 2 and result[name].shape[1] == 2 for name in names[:4])
        assert result["matched_kpts0"].shape == result["matched_kpts1"].shape
        assert all(len(result[f"all_desc{i}"]) == len(result[f"all_kpts{i}"]) for i in (0, 1))
        assert result["matched_confidences"].shape == (len(result["matched_kpts0"]),)
        return result


def vismatch_package(monkeypatch: pytest.MonkeyPatch) -> None:
    if not is_real("vismatch"):
        provide(monkeypatch, vismatch={"BaseMatcher": VismatchMatcher})


class DimExtractor:
    """deep-image-matching's ``ExtractorBase``: two-part configuration over defaults."""

    _default_conf: ClassVar[dict[str, Any]] = {}

    def __init__(self, custom_config: Any) -> None:
        self.config = {"general": custom_config.general, "extractor": {**self._default_conf, **custom_config.extractor}}
        self._device = "cpu"


def dim_package(monkeypatch: pytest.MonkeyPatch) -> None:
    if not is_real("deep_image_matching"):
        provide(
            monkeypatch,
            deep_image_matching={},
            deep_image_matching__extractors={},
            deep_image_matching__extractors__extractor_base={"ExtractorBase": DimExtractor},
            deep_image_matching__config={"confs": {}, "opt_zoo": {"extractors": ["sift"]}},
        )


def image_with_texture(height: int = 120, width: int = 160) -> Tensor:
    """Return a gray image (1, 1, H, W) with some keypoints."""
    from tests.helpers.pictures import texture

    return texture(height, width)


def write_png(path: Path, image: Tensor) -> None:
    from PIL import Image

    Image.fromarray((image[0, 0] * 255).round().byte().numpy()).save(path)
