"""Which module of the network an operation came from, as far as names tell."""

from __future__ import annotations

import re

from sd_mil.constexpr import is_compressed
from sd_mil.ir.program import Operation
from sd_mil.ir.uses import references
from sd_mil.rewriting.views import Definitions

#: What follows the module in the name of a weight: ``…_q_proj_weight_to_fp16_palettized``.
_PARAMETER = re.compile(r"[._](weight|bias|gamma|beta)([._].*)?$")
#: Names that coremltools makes up.
_MADE_UP = re.compile(r"(var|op|const|x|input)_\d+$")
#: Operations that are looked through, at most, on the way to a weight.
_STEPS = 24


def module_of(operation: Operation, definitions: Definitions) -> str:
    """The module whose weight the operation reads, or else the one whose weight is nearest before it.

    Of an operation with a path for a name (``encoder.layers.0.q``) that path. Empty where no weight's name
    ends as those of parameters do.
    """
    if "." in operation.name.strip(".") or "/" in operation.name:
        return operation.name
    seen: set[str] = set()
    wave = list(references(operation))
    for _ in range(_STEPS):
        for name in wave:
            producer = definitions.producers.get(name)
            found = _PARAMETER.search(name)
            if found and producer is not None and (producer.type == "const" or is_compressed(producer.type)):
                module = name[: found.start()]
                return "" if _MADE_UP.match(module) else module
        seen.update(wave)
        producers = (definitions.producers.get(name) for name in wave)
        wave = [name for one in producers if one is not None for name in references(one) if name not in seen]
    return ""
