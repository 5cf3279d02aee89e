"""Inputs as they are named on the command line.

``NAME=VALUE``, where VALUE is

- ``random`` or ``random:1x77``,
- a number, or a list of numbers as JSON has it: ``0.4``, ``[1, 2]``, ``[[1, 2], [3, 4]]``,
- of an input that takes text, the text,
- or else a file: ``.npy``, ``.npz``, a picture. No such file has a name that reads as a number or a list.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sd_mil import PredictionError

from sdc.arrays import read_array, refuse_foreign
from sdc.pictures import read_picture

if TYPE_CHECKING:
    import numpy as np
    from sd_mil import MLModel, Port

_RANDOM = re.compile(r"random(?::(\d+(?:x\d+)*))?")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?|[+-]?(inf|nan)", re.IGNORECASE)
_PICTURES = frozenset((".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff"))


def assemble(
    model: MLModel, given: Iterable[str], *, rest_random: bool, resize: bool, seed: int
) -> dict[str, Any]:
    """What ``predict`` takes, for ``NAME=VALUE`` arguments; ``rest_random`` draws what is not given.

    Raises:
        PredictionError: an unknown name, or a value that cannot be read or does not fit.
    """
    import numpy as np

    named = _named(given)
    if unknown := [name for name in named if name not in model.inputs]:
        raise PredictionError(f"expected inputs among {', '.join(model.inputs)}, got {', '.join(unknown)}")
    generator = np.random.default_rng(seed)
    values = {}
    for name, port in model.inputs.items():
        text = named.get(name, "random" if rest_random and not port.optional else None)
        if text is None and not port.optional:
            raise PredictionError(
                f"expected a value for input {port}: --input {name}=VALUE, --input {name}=random, or --random"
            )
        if text is not None:
            values[name] = _value(model, port, text, resize=resize, generator=generator)
    return values


def _named(given: Iterable[str]) -> dict[str, str]:
    named: dict[str, str] = {}
    for name, text in map(_split, given):
        if name in named:
            raise PredictionError(f"expected one value for input {name!r}, got {named[name]!r} and {text!r}")
        named[name] = text
    return named


def _split(argument: str) -> tuple[str, str]:
    name, equals, value = argument.partition("=")
    if not equals or not name or not value:
        raise PredictionError(f"expected --input NAME=VALUE, got {argument!r}")
    return name, value


def _value(model: MLModel, port: Port, text: str, *, resize: bool, generator: np.random.Generator) -> Any:
    if port.kind == "string":
        return text
    if drawn := _RANDOM.fullmatch(text):
        sizes = drawn.group(1)
        shape = tuple(map(int, sizes.split("x"))) if sizes else tuple(size or 1 for size in port.shape)
        from sd_mil.testing import random_value

        return random_value(model, port, shape, generator)
    if port.kind != "image" and (_NUMBER.fullmatch(text) or (text.startswith("[") and text.endswith("]"))):
        return _written(text, port)
    path = Path(text)
    if not os.path.isfile(path):
        raise _unreadable(text, port)
    refuse_foreign(path)
    if port.kind == "image" and path.suffix.lower() in _PICTURES:
        return read_picture(path, port, resize=resize)
    if path.suffix.lower() in (".npy", ".npz"):
        return _fitting(read_array(path, port), port)
    raise _unreadable(path.name, port)


def _unreadable(text: str, port: Port) -> PredictionError:
    kinds = "a picture" if port.kind == "image" else "a number, a list of numbers"
    return PredictionError(
        f"expected a file (.npy, .npz), {kinds} or 'random' for input {port}, got {_quoted(text)}"
    )


def _quoted(text: str) -> str:
    return repr(text if len(text) <= 80 else f"{text[:79]}…")


def _written(text: str, port: Port) -> Any:
    """A number or a list on the command line; one number fills a port of one element."""
    import numpy as np

    try:
        array = np.array(json.loads(text) if text.startswith("[") else _number(text))
    except (ValueError, OverflowError, RecursionError):
        raise _unreadable(text, port) from None
    if array.dtype.kind not in "iuf":
        raise _unreadable(text, port)
    if array.ndim == 0 and port.kind == "array" and port.allows(single := (1,) * len(port.shape)):
        array = array.reshape(single)
    if array.dtype.kind in "iu" and port.dtype.startswith("float"):
        array = array.astype(np.float64)
    return _fitting(array, port, said=f"{_quoted(text)}, ")


def _number(text: str) -> int | float:
    return int(text) if text.lstrip("+-").isdecimal() else float(text)


def _fitting(array: Any, port: Port, *, said: str = "") -> Any:
    """Floats become the port's floats, and integers its integers, where no number is lost."""
    import numpy as np

    if port.kind in ("int64", "double"):
        if array.size != 1 or (port.kind == "int64" and array.dtype.kind not in "iu"):
            raise _misfit(array, port, said)
        return array.item()
    if port.kind == "image" and array.ndim != len(port.shape):
        return array  # pixels, which predict holds against the port
    wanted = np.dtype(port.dtype)
    floats = array.dtype.kind == wanted.kind == "f"
    integers = array.dtype.kind in "iub" and wanted.kind in "iu"
    if not (floats or integers or array.dtype == wanted) or not port.allows(array.shape):
        raise _misfit(array, port, said)
    with np.errstate(over="ignore", invalid="ignore"):
        cast = array.astype(wanted, copy=False)
    if integers and not np.array_equal(cast, array):
        raise _misfit(array, port, said, "; a number does not fit")
    if floats and bool((np.isinf(cast) & ~np.isinf(array)).any()):
        raise _misfit(array, port, said, f"; a number is beyond the range of {wanted.name}")
    return cast


def _misfit(array: Any, port: Port, said: str, why: str = "") -> PredictionError:
    got = f"{said}{array.dtype}{list(array.shape)}"
    return PredictionError(f"expected {port.expected} for input {port.name!r}, got {got}{why}")
