"""Write packages/sd-mil/docs/ops.md: which operations each engine of sd-mil runs, from their registries.

    uv run python tools/op_table.py

The opset that first had an operation is coremltools' knowledge, which only this tool needs.
"""

from __future__ import annotations

from pathlib import Path

PAGE = Path(__file__).resolve().parent.parent / "packages" / "sd-mil" / "docs" / "ops.md"

HEADER = """# Operations

Written by `tools/op_table.py` from the engines' registries; do not edit.

*Since* is the first opset of ML Programs that has the operation. The reference engine computes all of them
in numpy. In the portable engine, *OpenVINO* means that there is a translation; a use that the translation
does not cover (a parameter that the program computes, a mode that OpenVINO lacks) runs in numpy between
compiled segments, as *numpy* operations always do, and `model.arithmetic` says so. `cond` and `while_loop`
whose blocks hold products, convolutions or recurrent layers have these blocks compiled; a `while_loop` that
computes an LSTM step by step runs as `lstm`. Weights are decoded when a model is loaded, to the bits that
coremltools decodes them to. States are inputs and outputs of what is compiled.

OpenVINO differs from numpy, torch and the reference engine in these: `relu`, `relu6`, `clip`,
`clamped_relu`, `sigmoid_hard`, `threshold`, `max_pool`, `reduce_max` and `reduce_min` lose NaN;
`reduce_argmax` and `reduce_argmin` give the place of another value than NaN, and `topk` and `argsort` may
put NaN elsewhere; `softmax` of nothing but minus infinity is 0, not NaN. Random operations draw from numpy's
generator: the same seed gives other numbers in Core ML.
"""

_STATES = {"read_state", "write_state", "coreml_update_state"}
_CONTROL = {"cond", "while_loop"}


def page() -> str:
    """The page as it should be, in Markdown."""
    since = first_opsets()
    rows = [f"| `{name}` | {since[name]} | numpy | {portable(name)} |" for name in known_operations()]
    table = ["| operation | since | reference | portable |", "|---|---|---|---|", *rows]
    return "\n".join([HEADER, f"{len(rows)} operations.", "", *table, ""])


def known_operations() -> list[str]:
    """Every operation of the reference engine, and ``const``, which is none."""
    from sd_mil.constexpr import CODECS
    from sd_mil.engines.reference.ops import OPS

    return sorted({*OPS, *CODECS})


def portable(name: str) -> str:
    """How the portable engine runs the operation."""
    import sd_mil.engines.openvino.ops  # noqa: F401 - fills the registry
    from sd_mil.engines.openvino.registry import find_translator

    if name.startswith("constexpr_"):
        return "decoded when loaded"
    if name in _STATES:
        return "an input and an output"
    if name in _CONTROL:
        return "blocks compiled, or numpy"
    return "OpenVINO" if find_translator(name) else "numpy"


def first_opsets() -> dict[str, str]:
    """The first opset of every operation: ``iOS15``, the first with ML Programs, ... ``iOS18``."""
    from coremltools.converters.mil.mil.ops.registry import SSAOpRegistry

    versions = {name: min(found, key=int) for name, found in SSAOpRegistry.core_ops.items()}
    first = {name: f"iOS{max(15, int(version) + 9)}" for name, version in versions.items()}
    return {**first, "write_state": "iOS18", "coreml_update_state": "iOS18"}


if __name__ == "__main__":
    PAGE.write_text(page())
