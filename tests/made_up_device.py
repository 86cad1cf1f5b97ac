"""A made-up GPU: its tensors refuse to meet those of the processor, which computes for it.

It shows what a processor alone cannot: that models, batches and losses are on the same device.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.optim import optimizer
from torch.utils import _pytree
from torch.utils._python_dispatch import TorchDispatchMode

from kdnas_core import hardware

_FUSED = "_get_fused_kernels_supported_devices"  # torch's list, which lacks this one
DEVICE = torch.device("lazy", 0)  # the one of torch's that needs no library


class OnDevice(torch.Tensor):
    """A tensor that says it is on `DEVICE`; `own` holds its values."""

    own: torch.Tensor

    @staticmethod
    def __new__(cls, own: torch.Tensor) -> OnDevice:
        made: OnDevice = torch.Tensor._make_wrapper_subclass(
            cls,
            own.size(),
            strides=own.stride(),
            storage_offset=own.storage_offset(),
            dtype=own.dtype,
            device=DEVICE,
            requires_grad=own.requires_grad,
        )
        made.own = own
        return made

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]
        return _computed(func, args, kwargs or {})


class _Factories(TorchDispatchMode):
    """Makes new tensors on the device, and moves tensors to it."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _computed(func, args, kwargs or {})


def _computed(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    leaves = _pytree.tree_leaves((args, kwargs))
    tensors = [each for each in leaves if isinstance(each, torch.Tensor)]
    wanted = [each.type == DEVICE.type for each in leaves if isinstance(each, torch.device)]
    # numbers may come from the processor, and indices too
    met = tensors[:1] if func in _BY_INDEX else tensors
    places = {isinstance(each, OnDevice) for each in met if each.dim() or isinstance(each, OnDevice)}
    if func not in _MOVES and len(places) > 1:
        raise RuntimeError(f"{func} got tensors of two devices")
    to_device = wanted[0] if wanted else places == {True}
    own_args, own_kwargs = _pytree.tree_map(_own, (args, kwargs))
    with torch.inference_mode(False), torch.no_grad():  # wrappers cannot be made in inference mode
        result = func(*own_args, **own_kwargs)
    if func is torch.ops.aten.copy_.default:
        return args[0]
    known = {id(each.own): each for each in tensors if isinstance(each, OnDevice)}

    def wrapped(value: Any) -> Any:
        if not isinstance(value, torch.Tensor) or isinstance(value, OnDevice) or not to_device:
            return value
        found = known.get(id(value))
        return OnDevice(value) if found is None else found

    with torch.inference_mode(False):
        return _pytree.tree_map(wrapped, result)


_MOVES = (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default)
_BY_INDEX = (torch.ops.aten.index.Tensor,)


def _own(value: Any) -> Any:
    if isinstance(value, torch.device):
        return torch.device("cpu")
    return value.own if isinstance(value, OnDevice) else value


@contextmanager
def made_up_device() -> Iterator[None]:
    """Models compute on the made-up device until the end of the block."""
    before, supported = torch.__future__.get_swap_module_params_on_conversion(), optimizer.__dict__[_FUSED]
    token = hardware._computes_on.set(DEVICE.type)
    torch.__future__.set_swap_module_params_on_conversion(True)
    try:
        optimizer.__dict__[_FUSED] = lambda: [*supported(), DEVICE.type]
        # the threads of other devices know no mode
        with torch.autograd.set_multithreading_enabled(False), _Factories():  # type: ignore[no-untyped-call]
            yield
    finally:
        optimizer.__dict__[_FUSED] = supported
        torch.__future__.set_swap_module_params_on_conversion(before)
        hardware._computes_on.reset(token)
