"""Equal parameters are one constant; parameters that only compare equal are not."""

from __future__ import annotations

import numpy as np
import pytest
from sd_convert.coreml import import_coremltools
from sd_convert.lowering.mil_builder import new_mil_builder

VALUES = [
    True,
    1,
    1.0,
    "1",
    np.float16(1),
    np.float32(1),
    np.int32(1),
    (1,),
    [1],
    (True,),
    (1, 1),
    np.ones(1, np.float32),
]


@pytest.fixture
def constants() -> list[object]:
    """What coremltools' builder makes of every value, twice."""
    import_coremltools()
    from coremltools.converters.mil.mil import Function

    mb = new_mil_builder()
    with Function({}):
        made: list[object] = [mb._add_const(value, "x", None) for value in VALUES * 2]
        large = [mb._add_const(np.zeros(65), "x", None) for _ in range(2)]
    assert large[0] is not large[1]
    return made


def test_equal_values_of_equal_types_are_one(constants: list[object]) -> None:
    first, second = constants[: len(VALUES)], constants[len(VALUES) :]
    assert all(one is two for one, two in zip(first, second, strict=True))
    assert len(set(map(id, first))) == len(VALUES)
