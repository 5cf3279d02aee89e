"""How large a network's numbers become: it is run, with the weights of one layer at a time in memory.

Imported only where it is used, because importing torch takes seconds.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from .component import Component
from .tensors import forget

#: Operations whose further outputs (1 / deviation) are their own business: normalisation is one operation.
_FIRST_OUTPUT_ONLY = ("aten::native_group_norm", "aten::native_layer_norm", "aten::native_batch_norm")


@dataclass(frozen=True, slots=True)
class Extreme:
    """The largest magnitude of all values between layers, and the path of the module that made it."""

    magnitude: float
    path: str


def largest_activation(component: Component, inputs: Mapping[str, npt.NDArray[np.generic]]) -> Extreme:
    """Run ``component`` in float32 on the CPU and watch every value that an operation returns.

    Attention's scores count, scaled as they are computed; what normalisation does inside does not. NaN
    counts as infinite. The module stays on the meta device: each layer's weights come when it is called, and
    go after.
    """
    tensors = [torch.from_numpy(np.asarray(inputs[port.name], np.float32)) for port in component.inputs]
    watch = _Watch()
    with torch.no_grad(), _weights_on_demand(component), _module_paths(component.module, watch), watch:
        component.module(*tensors)
    return Extreme(watch.magnitude, watch.path)


class _Watch(TorchDispatchMode):
    """Remembers the largest value; ``where`` is the path of the module at work."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.where: list[str] = []
        self.magnitude, self.path = 0.0, ""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        name = func._schema.name
        if "scaled_dot_product" in name:
            self._see(_scores(args[0], args[1], (kwargs or {}).get("scale")))
        if not any(output.alias_info for output in func._schema.returns):
            for value in tree_leaves(result)[: 1 if name in _FIRST_OUTPUT_ONLY else None]:
                self._see(value)
        return result

    def _see(self, value: Any) -> None:
        if not isinstance(value, torch.Tensor) or not value.is_floating_point() or not value.numel():
            return
        low, high = value.aminmax()
        magnitude = max(-float(low), float(high))
        magnitude = math.inf if math.isnan(float(high)) else magnitude
        if magnitude > self.magnitude and not value.is_meta:
            self.magnitude, self.path = magnitude, self.where[-1] if self.where else ""


def _scores(queries: torch.Tensor, keys: torch.Tensor, scale: float | None) -> torch.Tensor:
    """The largest and the smallest score of each head."""
    scale = queries.shape[-1] ** -0.5 if scale is None else scale
    pieces = [(scale * rows) @ keys.transpose(-1, -2) for rows in torch.split(queries, 256, dim=-2)]
    return torch.stack([torch.stack(piece.aminmax()) for piece in pieces])


@contextmanager
def _module_paths(module: torch.nn.Module, watch: _Watch) -> Iterator[None]:
    with ExitStack() as hooks:
        for path, part in module.named_modules():
            enter = part.register_forward_pre_hook(lambda *_, path=path: watch.where.append(path))
            leave = part.register_forward_hook(lambda *_: watch.where.pop() and None)
            hooks.callback(enter.remove)
            hooks.callback(leave.remove)
        yield


@contextmanager
def _weights_on_demand(component: Component) -> Iterator[None]:
    """Each module's own parameters are read before it is called, and back on the meta device afterwards."""
    with ExitStack() as hooks:
        for path, part in component.module.named_modules():
            owned = {name: f"{path}.{name}".lstrip(".") for name, _ in _own_tensors(part)}
            wanted = {name: full for name, full in owned.items() if full in component.weights}
            if wanted:
                before = dict(_own_tensors(part))
                hooks.callback(_put, part, before)
                enter = part.register_forward_pre_hook(
                    lambda part, _, wanted=wanted: _put(part, _read(component, wanted))
                )
                leave = part.register_forward_hook(lambda part, *_, before=before: _put(part, before))
                hooks.callback(enter.remove)
                hooks.callback(leave.remove)
        yield


def _own_tensors(module: torch.nn.Module) -> list[tuple[str, torch.Tensor]]:
    return [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]


def _read(component: Component, names: Mapping[str, str]) -> dict[str, torch.Tensor]:
    """Copies in float32; the pages of the file are let go."""
    tensors = {}
    for name, full in names.items():
        array = component.weights[full]
        tensors[name] = torch.from_numpy(np.array(array, dtype=np.float32))
        forget(array)
    return tensors


def _put(module: torch.nn.Module, tensors: Mapping[str, torch.Tensor]) -> None:
    for name, tensor in tensors.items():
        if name in module._buffers:
            module._buffers[name] = tensor
        else:
            module._parameters[name] = torch.nn.Parameter(tensor, requires_grad=False)
