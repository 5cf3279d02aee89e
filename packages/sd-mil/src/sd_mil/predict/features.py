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
    return as_array(value, port)


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


def as_array(value: object, port: Port) -> Array:
    """An array of the port's shape and dtype, from one, from a tensor of torch, or from lists of numbers.

    Floats of another width, and integers, are converted as Core ML does, if the port's dtype has a value for
    each: floats are rounded, none becomes infinite, and none is cut to an integer.

    Raises:
        PredictionError: another shape, something else than numbers, or numbers that the dtype cannot hold.
    """
    array = _numbers(value, port)
    if not port.allows(array.shape):
        raise PredictionError(_misfit(array, port))
    return array if array.dtype == port.dtype else _converted(array, port)


def _numbers(value: object, port: Port) -> Array:
    if isinstance(value, np.ndarray):
        return value
    detached = getattr(
        value, "detach", None
    )  # of a tensor of torch, which numpy refuses while it has a gradient
    try:
        array = np.asarray(value if detached is None else detached().cpu())
    except (TypeError, ValueError, RuntimeError) as error:
        kind = type(value).__name__
        raise PredictionError(
            f"expected {port.expected}, got {kind} for input {port.name!r}: {error}"
        ) from None
    if array.dtype.kind not in "fiub":
        kind = type(value).__name__
        raise PredictionError(f"expected {port.expected}, got {kind} for input {port.name!r}")
    return array


def _converted(array: Array, port: Port) -> Array:
    if array.dtype.kind not in ("fiub" if np.dtype(port.dtype).kind == "f" else "iub"):
        raise PredictionError(f"{_misfit(array, port)}; cast it with .astype({port.dtype!r})")
    with np.errstate(over="ignore", invalid="ignore"):
        converted = array.astype(port.dtype)
        changed = (
            converted != array if converted.dtype.kind in "iu" else np.isinf(converted) & ~np.isinf(array)
        )
    if changed.any():
        lost = array[changed].ravel()[0]
        raise PredictionError(f"{_misfit(array, port)} with {lost!s}, which {port.dtype} does not hold")
    return converted


def _misfit(array: Array, port: Port) -> str:
    return f"expected {port.expected}, got {array.dtype}{list(array.shape)} for input {port.name!r}"


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
