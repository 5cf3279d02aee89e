"""The committed table of operations is the one that the registries give."""

import op_table
import pytest

pytest.importorskip("coremltools")
pytest.importorskip("openvino")


def test_the_table_is_current():
    assert op_table.PAGE.read_text() == op_table.page(), "run: uv run python tools/op_table.py"


def test_every_operation_of_coremltools_is_in_it():
    from coremltools.converters.mil.mil.ops.registry import SSAOpRegistry

    assert set(SSAOpRegistry.core_ops) - {"const", "_const_symbolic"} <= set(op_table.known_operations())
