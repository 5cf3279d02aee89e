"""From what the caller of ``predict`` gives to the arrays that a program takes, and back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from sd_mil.errors import PackageError, PredictionError, UnsupportedModelError
from sd_mil.ir.ports import Port
from sd_mil.predict.images import image_tensor, tensor_image

Array = npt.NDArray[Any]


def check_names(data: Mapping[str, Any], ports: Iterable[Port]) -> None:
    """Every required input is given, and nothing else.

    Raises:
        PredictionError: it is not so.
    """
    known = {port.name: port for port in ports}
    missing = [name for name, port in known.items() if name not in data and not port.optional]
    unexpected = [name for name in data if name not in known]
    if missing or unexpected:
        raise PredictionError(f"expected inputs {list(known)}; missing: {missing}; unexpected: {unexpected}")


def check_kinds(ports: Iterable[Port], allowed: tuple[str, ...], side: str) -> None:
    """A program computes numbers: text and dictionaries come from classifiers only.

    Raises:
        UnsupportedModelError: a port of another kind.
    """
    for port in ports:
        if port.kind not in allowed:
            raise UnsupportedModelError(f"expected numbers for {side} {port.name!r}, got a {port.kind}")


def taken(data: Mapping[str, Any], port: Port, shape: tuple[int | None, ...], dtype: str) -> Array:
    """The array that the program takes for the port; ``shape`` and ``dtype`` are what it declares.

    Raises:
        PredictionError: the value does not fit.
    """
    if port.name not in data:
        return default(port)
    value = data[port.name]
    if port.kind == "image":
        return image_tensor(value, port)
    if port.kind in ("int64", "double"):
        return np.full([1 if size is None else size for size in shape], number(value, port), dtype)
    _check_array(value, port)
    array: Array = value
    return array


def default(port: Port) -> Array:
    """What an optional input is that is not given.

    Raises:
        PredictionError: its description does not say.
    """
    if port.default is None:
        raise PredictionError(
            f"expected {port.expected} for input {port.name!r}, got nothing, and it has no default"
        )
    return np.full([size or 0 for size in port.shape], port.default, port.dtype)


def number(value: object, port: Port) -> Any:
    """The single number that an ``int64`` or ``double`` port takes, as an array without dimensions.

    Raises:
        PredictionError: the value is none.
    """
    array = np.asarray(value)
    kinds = "iu" if port.kind == "int64" else "iuf"
    if array.size != 1 or array.dtype.kind not in kinds:
        raise PredictionError(f"expected {port.expected}, got {value!r} for input {port.name!r}")
    return array.reshape(())


def _check_array(array: object, port: Port) -> None:
    if not isinstance(array, np.ndarray):
        raise PredictionError(f"expected {port.expected}, got {type(array).__name__} for input {port.name!r}")
    fits = port.allows(array.shape)
    if fits and array.dtype == port.dtype:
        return
    got = f"{array.dtype}{list(array.shape)}"
    advice = f"; cast it with .astype({port.dtype!r})" if fits else ""
    raise PredictionError(f"expected {port.expected}, got {got} for input {port.name!r}{advice}")


def given(array: Array, port: Port) -> Any:
    """What the caller gets for an output.

    Raises:
        PackageError: the program computed another shape than the description states.
    """
    if port.kind in ("int64", "double"):
        if array.size != 1:
            raise PackageError(f"expected one number for {port.name!r}, got shape {list(array.shape)}")
        return array.item()
    if not port.allows(array.shape):
        raise PackageError(
            f"expected output {port.name!r} to be {port.expected} as described, got shape {list(array.shape)}"
        )
    if port.kind == "image":
        return tensor_image(array, port)
    with np.errstate(over="ignore", invalid="ignore"):
        return array.astype(port.dtype, copy=False)
