"""A component's module as a graph of ATen operations, traced on tensors without memory."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sd_convert.components.component import Component

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True)
class Exported:
    """The graph, and the values that the module itself knows: buffers and constants of its code."""

    program: torch.export.ExportedProgram
    constants: Mapping[str, torch.Tensor]

    @property
    def operations(self) -> frozenset[str]:
        """The kinds of ATen operations in the graph."""
        return frozenset(str(node.target) for node in self.program.graph.nodes if node.op == "call_function")


def export(component: Component) -> Exported:
    """Trace ``component.module`` with inputs of the shapes of its ports, in float32, on the meta device."""
    import torch

    module = component.module
    constants = {name: buffer.detach() for name, buffer in module.named_buffers() if not buffer.is_meta}
    inputs = tuple(torch.empty(port.shape, dtype=torch.float32, device="meta") for port in component.inputs)
    with torch.no_grad(), _without_stack_traces():
        program = torch.export.export(copy.deepcopy(module).to("meta").eval(), inputs, strict=False)
    _without_additions_in_place(program.graph_module.graph)
    constants |= {name: value for name, value in program.constants.items() if not value.is_meta}
    return Exported(program, constants)


def _without_additions_in_place(graph: torch.fx.Graph) -> None:
    """Make ``x += y`` a sum of its own, which is what every later reader of ``x`` reads.

    diffusers adds a T2I-Adapter's features so, also to what the skip connections have kept.
    """
    import torch

    aten = torch.ops.aten
    for node in list(graph.nodes):
        if node.target is not aten.add_.Tensor:
            continue
        node.target, changed = aten.add.Tensor, node.args[0]
        position = {each: index for index, each in enumerate(graph.nodes)}
        later = {user for user in changed.users if position[user] > position[node]}
        changed.replace_all_uses_with(node, delete_user_cb=later.__contains__)


@contextmanager
def _without_stack_traces() -> Iterator[None]:
    """Nobody reads where in the code each node was made, and finding it out takes a third of the tracing."""
    from torch.fx import config

    if not hasattr(config, "do_not_emit_stack_traces"):  # older torch
        yield
        return
    were_off = config.do_not_emit_stack_traces
    config.do_not_emit_stack_traces = True
    try:
        yield
    finally:
        config.do_not_emit_stack_traces = were_off
