"""The levels of the patch pyramid are kornia's."""

from __future__ import annotations

import pytest
import torch
from kornia.geometry.transform import pyrdown

from kornia_lift.geometry.pyramid import halve


@pytest.mark.parametrize("size", [(64, 48), (63, 48), (64, 47), (31, 33), (4, 4), (3, 6)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_halving_is_kornias_pyrdown(size: tuple[int, int], dtype: torch.dtype) -> None:
    image = torch.rand(2, 1, *size, dtype=dtype)
    found, expected = halve(image), pyrdown(image)
    assert found.dtype == dtype
    assert torch.allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("size", [(6, 8), (7, 8)])
def test_halving_has_a_gradient(size: tuple[int, int]) -> None:
    image = torch.rand(1, 1, *size, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(halve, (image,))
