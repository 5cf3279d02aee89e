"""Inputs as they are named on the command line: ``name=file.npy``, ``name=picture.png``, ``name=random``."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    import numpy as np
    from sd_mil import MLModel, Package, Port

_RANDOM = re.compile(r"random(?::(\d+(?:x\d+)*))?")
_PICTURES = frozenset((".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"))
#: Operations between a port and the table that its integers look up.
_PASSED = frozenset(
    ("add", "cast", "expand_dims", "identity", "reshape", "select", "slice_by_index", "squeeze", "transpose")
)
_MOST_ELEMENTS = 1 << 28


def assemble(
    model: MLModel, given: Iterable[str], *, rest_random: bool, resize: bool, seed: int
) -> dict[str, Any]:
    """What ``predict`` takes, for ``NAME=VALUE`` arguments; ``rest_random`` draws what is not given.

    Raises:
        click.ClickException: an unknown name, or a value that cannot be read or does not fit.
    """
    import numpy as np

    named = dict(_split(one) for one in given)
    if unknown := [name for name in named if name not in model.inputs]:
        raise click.ClickException(
            f"expected inputs among {', '.join(model.inputs)}, got {', '.join(unknown)}"
        )
    generator = np.random.default_rng(seed)
    values = {}
    for name, port in model.inputs.items():
        text = named.get(name, "random" if rest_random and not port.optional else None)
        if text is None and not port.optional:
            raise click.ClickException(
                f"expected a value for input {port}: --input {name}=FILE, --input {name}=random, or --random"
            )
        if text is not None:
            values[name] = _value(model, port, text, resize=resize, generator=generator)
    return values


def _split(argument: str) -> tuple[str, str]:
    name, equals, value = argument.partition("=")
    if not equals or not name or not value:
        raise click.ClickException(f"expected --input NAME=VALUE, got {argument!r}")
    return name, value


def _value(model: MLModel, port: Port, text: str, *, resize: bool, generator: np.random.Generator) -> Any:
    drawn = _RANDOM.fullmatch(text)
    if drawn:
        sizes = drawn.group(1)
        shape = tuple(map(int, sizes.split("x"))) if sizes else tuple(size or 1 for size in port.shape)
        return _random(model, port, shape, generator)
    path = Path(text)
    if not path.is_file():
        raise click.ClickException(f"expected a file or 'random' for input {port.name!r}, got {text!r}")
    if port.kind == "image" and path.suffix.lower() in _PICTURES:
        return _picture(path, port, resize=resize)
    if path.suffix.lower() in (".npy", ".npz"):
        return _fitting(_array(path, port.name), port)
    wanted = "a picture, .npy or .npz" if port.kind == "image" else ".npy or .npz"
    raise click.ClickException(f"expected {wanted} for input {port}, got {path.name!r}")


def _random(model: MLModel, port: Port, shape: tuple[int, ...], generator: np.random.Generator) -> Any:
    """Floats are normal, pixels uniform, integers within the table they look up (else 0 or 1), masks 1."""
    import math

    import numpy as np

    if not port.allows(shape):
        raise click.ClickException(f"expected a shape for input {port}, got {list(shape)}")
    if math.prod(shape) > _MOST_ELEMENTS:
        raise click.ClickException(
            f"expected at most {_MOST_ELEMENTS} elements for {port.name!r}, got {shape}"
        )
    if port.kind == "image":
        return generator.integers(0, 256, shape).astype(port.dtype)
    if port.kind in ("int64", "double"):
        return 0 if port.kind == "int64" else float(generator.standard_normal())
    if np.dtype(port.dtype).kind == "f":
        return generator.standard_normal(shape).astype(port.dtype)
    if "mask" in port.name.lower():
        return np.ones(shape, port.dtype)
    return generator.integers(0, table_size(model.package, port.name, model.function_name), shape).astype(
        port.dtype
    )


def table_size(package: object, name: str, function: str | None = None) -> int:
    """How many entries the smallest table has in which the integers of an input are looked up; 2 if none."""
    from sd_mil import Package

    if not isinstance(package, Package):
        return 2
    return min(_tables(package, name, function), default=2)


def _tables(package: Package, name: str, function: str | None) -> Iterable[int]:
    program = package.program
    reached, shapes = {name}, _shapes(package, function)
    for operation in program.operations(function):
        used = {
            key
            for key, arguments in operation.inputs.items()
            if any(getattr(argument, "name", None) in reached for argument in arguments)
        }
        if operation.type in ("gather", "gather_along_axis") and "indices" in used:
            table = getattr(operation.inputs["x"][0], "name", "")
            size = (shapes.get(table) or (None,))[0]
            if size:
                yield size
        elif operation.type in _PASSED and used:
            reached.update(variable.name for variable in operation.outputs)


def _shapes(package: Package, function: str | None) -> Mapping[str, tuple[int | None, ...]]:
    return {
        variable.name: variable.type.shape
        for operation in package.program.operations(function)
        for variable in operation.outputs
    }


def _picture(path: Path, port: Port, *, resize: bool) -> Any:
    from PIL import Image, UnidentifiedImageError

    mode = {"GRAYSCALE": "L", "GRAYSCALE_FLOAT16": "F"}.get(str(port.color), "RGB")
    try:
        with Image.open(path) as opened:
            image = opened.convert(mode)
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError, ValueError) as error:
        raise click.ClickException(f"expected a picture in {path.name!r}, got: {error}") from error
    height, width = port.shape[-2] or image.height, port.shape[-1] or image.width
    if port.allows((1, 1 if mode != "RGB" else 3, image.height, image.width)):
        return image
    if not resize:
        raise click.ClickException(
            f"expected a picture of {width}x{height} pixels for input {port.name!r}, got "
            f"{image.width}x{image.height}; --resize does it"
        )
    return image.resize((width, height), Image.Resampling.LANCZOS)


def _array(path: Path, name: str) -> Any:
    """An array; of an .npz the one with the input's name, or the only one. Nothing is unpickled."""
    import numpy as np

    try:
        if path.suffix.lower() == ".npy":
            return np.array(np.load(path, mmap_mode="r", allow_pickle=False))
        with np.load(path, allow_pickle=False) as archive:
            chosen = name if name in archive.files or len(archive.files) != 1 else archive.files[0]
            if chosen not in archive.files:
                raise click.ClickException(
                    f"expected an array {name!r} in {path.name!r}, got {', '.join(archive.files)}"
                )
            return archive[chosen]
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise click.ClickException(f"expected an array in {path.name!r}, got: {error}") from error


def _fitting(array: Any, port: Port) -> Any:
    """Floats become the port's floats, and integers its integers where no number is lost."""
    import numpy as np

    if port.kind in ("int64", "double"):
        return array.item() if array.size == 1 else array
    wanted = np.dtype(port.dtype)
    if array.dtype == wanted:
        return array
    floats = array.dtype.kind == wanted.kind == "f"
    integers = array.dtype.kind in "iub" and wanted.kind in "iu"
    cast = array.astype(wanted) if floats or integers else None
    if cast is None or (integers and not np.array_equal(cast, array)):
        raise click.ClickException(f"expected {port.expected} for input {port.name!r}, got {array.dtype}")
    return cast
