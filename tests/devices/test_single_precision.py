"""Features of float32 images need no double precision, which Apple's GPUs do not have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from kornia_lift import LIFTFeature
from kornia_lift.networks._fast.plan import fast_paths
from tests.helpers.pictures import texture


class WithoutDouble(TorchDispatchMode):
    """Refuses operations whose result is in double precision."""

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        assert not any(t.dtype == torch.float64 for t in tree_leaves(out) if isinstance(t, torch.Tensor)), func
        return out


@pytest.mark.parametrize("model", ["lift", "lift-plus"])
@pytest.mark.parametrize("gradient", [False, True])
def test_single_precision_is_enough(model: str, gradient: bool) -> None:
    feature, image = LIFTFeature(40, pretrained=model), texture(120, 140)
    mask = torch.ones_like(image)
    image[..., :20], mask[..., :40] = 0, 0.5  # padding and weights are read too
    with torch.set_grad_enabled(gradient), fast_paths(False), WithoutDouble():
        lafs, _, _ = feature(image, mask)
    assert lafs.dtype == torch.float32 and lafs.any()


def test_double_precision_is_noticed() -> None:
    with pytest.raises(AssertionError), WithoutDouble():
        torch.rand(3).double()
