"""A device that is not the CPU, played by the CPU: what fails on it fails on a GPU, and needs none to be noticed.

Tensors on it say that they are elsewhere. An operation that takes some from here and some from there raises, as CUDA
does; their values are in memory of the CPU.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

THERE = torch.device("meta")  # the one device beside the CPU that every build of torch differentiates on
#: What CUDA takes from both sides: copies, and indices, which it carries over.
MIXED = {"_to_copy", "copy_", "index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index"}
#: What waits for the device: the shape or the value of the result is needed here.
WAITS = {"_local_scalar_dense", "nonzero", "_unique2", "masked_select", "repeat_interleave", "bincount", "equal"}


class Elsewhere(Tensor):
    """A tensor that says it is on another device.

    Attributes:
        here: its values.

    """

    here: Tensor

    @staticmethod
    def __new__(cls, here: Tensor) -> Elsewhere:
        made = Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls, here.shape, strides=here.stride(), storage_offset=here.storage_offset(), dtype=here.dtype, device=THERE
        )
        made.here = here
        return made  # type: ignore[no-any-return]

    def __repr__(self, **_: Any) -> str:
        return f"Elsewhere({self.here!r})"

    def tolist(self) -> Any:
        """Return the values; torch refuses to for subclasses."""
        return self.here.tolist()

    def new_tensor(self, data: Any, **options: Any) -> Tensor:
        """Make a tensor there; torch would leave its values out."""
        return Elsewhere(self.here.new_tensor(data, **options))

    def numpy(self, *_: Any, **__: Any) -> Any:
        """Refuse, as tensors of CUDA do."""
        raise TypeError(f"can't convert a tensor on {THERE} to numpy; use Tensor.cpu() first")

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {}, Counter())


class OtherDevice(TorchDispatchMode):
    """While it is entered, ``.to(device)`` of it moves tensors there.

    Attributes:
        device: to be given to ``.to`` and as ``device=``.
        waits: how often each operation waited for the device.

    """

    def __init__(self) -> None:
        super().__init__()
        self.device = THERE
        self.waits: Counter[str] = Counter()

    def __enter__(self) -> OtherDevice:
        self._constants = _Constants()
        self._constants.__enter__()
        torch.autocast = _autocast  # type: ignore[misc, assignment]
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._constants.__exit__(*error)
        torch.autocast = _torch_autocast  # type: ignore[misc]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {}, self.waits)


_torch_autocast = torch.autocast


def _autocast(device_type: str, *args: Any, **kwargs: Any) -> torch.autocast:
    """Torch has no autocast for the device that plays: that of the CPU, where the values are."""
    return _torch_autocast("cpu" if device_type == THERE.type else device_type, *args, **kwargs)


class _Constants(TorchFunctionMode):
    """Makes constants there, whose values torch would leave out."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        device = kwargs.get("device")
        if func in (torch.tensor, torch.as_tensor) and device is not None and torch.device(device) == THERE:
            return func(*args, **{**kwargs, "device": None}).to(THERE)
        return func(*args, **kwargs)


def here(x: Tensor) -> Tensor:
    """Return the values of a tensor that is there."""
    assert isinstance(x, Elsewhere), f"expected a tensor on {THERE}, got one on {x.device}"
    return x.here.detach()


def _run(func: Any, args: Any, kwargs: dict[str, Any], waits: Counter[str]) -> Any:
    name = func.overloadpacket.__name__
    tensors = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
    there = [t for t in tensors if isinstance(t, Elsewhere)]
    target = kwargs.get("device")
    if target is not None:
        kwargs = {**kwargs, "device": torch.device("cpu")}
        kwargs.pop("pin_memory", None)
    if name == "_to_copy" or target is not None:
        goes = bool(there) if target is None else torch.device(target) == THERE
        if there and not goes:
            waits["to the CPU"] += 1
    else:
        goes = bool(there)
    if name == "copy_":
        goes = isinstance(args[0], Elsewhere)
        if there and not goes:
            waits["to the CPU"] += 1
    if there and name not in MIXED:
        astray = [t for t in tensors if not isinstance(t, Elsewhere) and t.dim()]
        if astray:
            raise RuntimeError(f"{func}: expected all tensors on one device, got {THERE} and {astray[0].device}")
    if there and name in WAITS:
        waits[name] += 1
    out = func(*_unwrapped(args), **_unwrapped(kwargs))
    if name.endswith("_") and not name.startswith("_") and args and isinstance(args[0], Elsewhere):
        return args[0]
    if "out" in kwargs and there:
        return tree_map(lambda _: _, kwargs["out"])
    return tree_map(lambda x: Elsewhere(x) if isinstance(x, Tensor) else x, out) if goes else out


def _unwrapped(values: Any) -> Any:
    take: Callable[[Any], Any] = lambda x: x.here if isinstance(x, Elsewhere) else x  # noqa: E731
    return tree_map(take, values)
