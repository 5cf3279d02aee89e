"""The walk over an exported graph, from ports to ports."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import torch
from sd_mil import Program
from sd_mil.ir import Target
from torch.export.graph_signature import InputKind, InputSpec
from torch.fx import Node
from torch.fx.node import map_aggregate

from sd_convert.components.component import Component
from sd_convert.coreml import import_coremltools
from sd_convert.errors import LoweringError
from sd_convert.lowering.choice import Choose
from sd_convert.lowering.export import Exported

from . import aten  # noqa: F401 - registers the lowerers
from .builder import Builder
from .folding import computed_weight
from .program import program_of
from .registry import lowerer_of
from .values import Tensor, Weight, stored

_ANGLE_FUNCTIONS: Final = frozenset({"aten.sin.default", "aten.cos.default"})


def lower(
    exported: Exported, component: Component, *, attention: Choose, precision: str, target: Target
) -> Program:
    """Express an exported graph in MIL operations, with the ports of ``component``.

    Weights become constants that are read when they are asked for (:class:`.CheckpointTensor`), but for small
    ones and those that constants are folded from.
    ``attention``: chooses the implementation that each operator ``sd_attention::attention`` becomes.
    ``precision``: the dtype of arithmetic and weights, float16 or float32.

    Raises:
        LoweringError: an operation that is not lowered; its name and the module that it comes from are said.
        WeightsMismatchError: a weight that the checkpoint lacks, or has in another shape.
    """
    coremltools = import_coremltools()
    from coremltools.converters.mil.mil import Function

    builder = Builder(
        component.weights,
        attention=attention,
        dtype=precision,
        has_images="aten.conv2d.default" in exported.operations,
        reserved=[port.name for port in (*component.inputs, *component.outputs)],
    )
    inputs = {port.name: builder.placeholder(port.shape, port.dtype) for port in component.inputs}
    function = Function(inputs, opset_version=getattr(coremltools.target, target.opset))
    with function:
        ports = [stored(function.inputs[port.name]) for port in component.inputs]
        results = _Walk(builder, exported, ports).run()
        function.set_outputs(_outputs(builder, component, results))
    return program_of(function, builder.tensors, specification=target.specification)


def _outputs(builder: Builder, component: Component, results: Sequence[Any]) -> list[Any]:
    if len(results) != len(component.outputs):
        raise LoweringError(
            f"{component.name}: expected a module with {len(component.outputs)} outputs, got {len(results)}"
        )
    for port, result in zip(component.outputs, results, strict=True):
        if not isinstance(result, Tensor) or result.shape != port.shape:
            got = list(result.shape) if isinstance(result, Tensor) else type(result).__name__
            raise LoweringError(f"{port.name}: expected a tensor of shape {list(port.shape)}, got {got}")
    return [builder.output(p.name, r, p.dtype) for p, r in zip(component.outputs, results, strict=True)]


class _Walk:
    """One pass over the nodes in order; ``values`` holds what each one became."""

    def __init__(self, builder: Builder, exported: Exported, ports: Sequence[Tensor]) -> None:
        self.builder = builder
        self.exported = exported
        self.ports = iter(ports)
        self.precision = builder.dtype
        self.exact = _exact_nodes(exported)
        self.values: dict[Node, Any] = {}

    def run(self) -> Sequence[Any]:
        """Lower every node that something depends on; the values that the module returns."""
        specs = iter(self.exported.program.graph_signature.input_specs)
        results: Any = ()
        for node in self.exported.program.graph.nodes:
            if node.op == "placeholder":
                self.values[node] = self._input(node, next(specs))
            elif node.op == "output":
                results = map_aggregate(node.args[0], self._value)
            elif node.users:
                self.values[node] = self._operation(node)
        return results if isinstance(results, tuple | list) else (results,)

    def _input(self, node: Node, spec: InputSpec) -> Any:
        if spec.kind is InputKind.USER_INPUT:
            return next(self.ports)
        name = str(spec.target)
        known = self.exported.constants.get(name)
        return Weight(name, _shape(node)) if known is None else known

    def _operation(self, node: Node) -> Any:
        name = _operation_name(node)
        self.builder.scope = _module_path(node)
        self.builder.dtype = np.dtype(np.float32) if node in self.exact else self.precision
        args, kwargs = map_aggregate((node.args, dict(node.kwargs)), self._value)
        if not _holds(Tensor, (args, kwargs)):
            return self._folded(node, args, kwargs)
        if name.startswith("aten.to."):
            kwargs = {"result": node.meta["val"].dtype}
        return lowerer_of(name, self.builder.scope)(self.builder, *args, **kwargs)

    def _folded(self, node: Node, args: Any, kwargs: Any) -> Any:
        """What depends on no input: computed when weights are read, or now, and then they are read for it."""
        for weight in args:
            if isinstance(weight, Weight):
                self.builder.check(weight)
        computed = None if kwargs else computed_weight(_operation_name(node), args, _shape(node))
        if computed is not None:
            return computed
        args, kwargs = map_aggregate((args, kwargs), self._read)
        return node.target(*args, **kwargs)  # type: ignore[operator]

    def _read(self, value: Any) -> Any:
        if not isinstance(value, Weight):
            return value
        return torch.from_numpy(self.builder.read(value, np.dtype(np.float32)).copy())

    def _value(self, argument: Any) -> Any:
        """What an argument has become; constants are folded on the CPU, wherever the graph was traced."""
        value = self.values.get(argument) if isinstance(argument, Node) else argument
        if isinstance(value, Tensor):
            return self.builder.in_precision(value)
        return torch.device("cpu") if isinstance(value, torch.device) else value


def _shape(node: Node) -> tuple[int, ...]:
    return tuple(map(int, getattr(node.meta.get("val"), "shape", ())))


def _exact_nodes(exported: Exported) -> frozenset[Node]:
    """Nodes that are computed in float32 whatever the precision, because float16 has too few digits for them.

    They are what leads to nothing but integers (token ids reach 49,407) or angles (near a timestep of 999,
    float16 numbers are half a radian apart).
    """
    exact: set[Node] = set()
    for node in reversed(exported.program.graph.nodes):
        if node.op == "output":
            continue
        users = [user for user in node.users if user.users or user.op == "output"]
        if _is_exact(node) or (users and all(user in exact for user in users)):
            exact.add(node)
    return frozenset(exact)


def _is_exact(node: Node) -> bool:
    """Whether a node computes an angle's sine or cosine, or integers."""
    value = node.meta.get("val")
    integers = isinstance(value, torch.Tensor) and not value.dtype.is_floating_point
    return integers or str(node.target) in _ANGLE_FUNCTIONS


def _holds(kind: type, arguments: Any) -> bool:
    """Whether something in the arguments is of a kind."""
    found: list[Any] = []
    map_aggregate(arguments, found.append)
    return any(isinstance(value, kind) for value in found)


def _operation_name(node: Node) -> str:
    """``aten.conv2d.default``; Python's own functions by their name."""
    is_aten = isinstance(node.target, torch._ops.OpOverload)
    return str(node.target) if is_aten else getattr(node.target, "__name__", str(node.target))


def _module_path(node: Node) -> str:
    """The path of the module that the node comes from."""
    stack = node.meta.get("nn_module_stack") or {"": ("", None)}
    return str(list(stack.values())[-1][0])
