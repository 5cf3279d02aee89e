"""How weights are to be stored, as options of a command; an option that would do nothing is refused."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from sd_compress import Activations, Linear, Palettize, Scheme

_F = TypeVar("_F", bound=Callable[..., Any])

_OPTIONS = (
    click.option(
        "--method",
        type=click.Choice(["palettize", "linear", "prune"]),
        help="Tables (the default), integers with scales, or zeros; pruned weights may be palettized "
        "(--nbits) or quantized (--dtype), too.",
    ),
    click.option("--nbits", type=int, help="Bits of an index: 1, 2, 3, 4, 6 or 8; of an integer: 4 or 8."),
    click.option("--group-size", type=click.IntRange(min=1), help="Channels that share a table (iOS18)."),
    click.option("--per-channel-scale", is_flag=True, help="A scale for each channel of a table (iOS18)."),
    click.option("--vector-size", type=click.IntRange(min=2), help="Channels that share an index (iOS18)."),
    click.option(
        "--dtype",
        type=click.Choice(["int8", "uint8", "int4", "uint4"]),
        help="Of the integers; by default int8.",
    ),
    click.option("--mode", type=click.Choice(["symmetric", "asymmetric"]), help="Where zero is."),
    click.option(
        "--granularity",
        type=click.Choice(["tensor", "channel"]),
        help="What shares a scale; by default channels.",
    ),
    click.option("--block-size", type=click.IntRange(min=1), help="Inputs that share a scale (iOS18)."),
    click.option(
        "--activations",
        type=click.Choice(["symmetric", "asymmetric"]),
        is_flag=False,
        flag_value="symmetric",
        help="Of linear: the inputs of layers as int8, too, around zero or not (iOS17, with --calibrate).",
    ),
    click.option(
        "--activation-range",
        type=click.Choice(["mse", "percentile", "minmax"]),
        help="What those integers reach: what leaves the least squared error (the default), all but 1 in "
        "10,000, or all.",
    ),
    click.option("--sparsity", type=float, help="The share of elements to prune, 0 to 1."),
    click.option("--n-m", metavar="N:M", help="Prune N of every M neighbouring inputs instead."),
)


def scheme_options(command: _F) -> _F:
    """Adds the options; the command gets what was given as ``asked``."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def scheme_asked(given: Mapping[str, Any]) -> Scheme:
    """The scheme that the options describe.

    Raises:
        click.UsageError: options that do not go together, or a number that the method does not have.
    """
    from sd_compress import RecipeError

    asked = {name: value for name, value in given.items() if is_given(value)}
    method = asked.pop("method", _method_meant(asked))
    try:
        if method == "prune":
            return _pruned(asked)
        scheme = _palettized(asked) if method == "palettize" else _linear(asked)
    except RecipeError as error:  # that starts with the field, which is called as the option
        field, _, what = str(error).lstrip(".").partition(":")
        raise click.UsageError(f"--{field.replace('_', '-')}:{what}") from None
    _refuse_rest(method, asked)
    return scheme


def is_given(value: object) -> bool:
    """Whether an option was used; 0 is a value like any other."""
    return value is not None and value is not False and value != ()


def _method_meant(asked: Mapping[str, Any]) -> str:
    """Where none is named."""
    if {"sparsity", "n_m"} & asked.keys():
        return "prune"
    return "linear" if "activations" in asked else "palettize"


def _pruned(asked: dict[str, Any]) -> Scheme:
    from sd_compress import Joint, Prune

    given = {name: asked.pop(name) for name in ("sparsity", "n_m") if name in asked}
    if len(given) != 1:
        raise click.UsageError("pruning takes either --sparsity or --n-m")
    prune = Prune(n_m=_pair(given["n_m"])) if "n_m" in given else Prune(given["sparsity"])
    if not asked:
        return prune
    is_linear = {"dtype", "mode", "granularity", "block_size"} & asked.keys()
    then = _linear(asked) if is_linear else _palettized(asked)
    _refuse_rest("prune", asked)
    return Joint(prune, then)


def _palettized(asked: dict[str, Any]) -> Palettize:
    from sd_compress import Palettize, PerGroupedChannel, PerTensor

    if "nbits" not in asked:
        raise click.UsageError("palettization takes --nbits")
    size = asked.pop("group_size", None)
    return Palettize(
        asked.pop("nbits"),
        PerTensor() if size is None else PerGroupedChannel(size),
        per_channel_scale=asked.pop("per_channel_scale", False),
        vector_size=asked.pop("vector_size", 1),
    )


def _linear(asked: dict[str, Any]) -> Linear:
    from sd_compress import Linear, PerBlock, PerChannel, PerTensor

    bits, dtype = asked.pop("nbits", None), asked.pop("dtype", None)
    if bits is not None and dtype is not None:
        raise click.UsageError("integers take either --nbits or --dtype")
    if bits not in (None, 4, 8):
        raise click.UsageError(f"--nbits: expected 4 or 8 for integers, got {bits}")
    block, shared = asked.pop("block_size", None), asked.pop("granularity", None)
    if block is not None and shared is not None:
        raise click.UsageError("scales take either --block-size or --granularity")
    kind = PerBlock(block) if block is not None else PerTensor() if shared == "tensor" else PerChannel()
    named: Any = dtype or (f"int{bits}" if bits is not None else "int8")
    return Linear(named, asked.pop("mode", "symmetric"), kind, _activations(asked))


def _activations(asked: dict[str, Any]) -> Activations | None:
    from sd_compress import Activations

    if "activations" not in asked:
        if "activation_range" in asked:
            raise click.UsageError("--activation-range: it needs --activations")
        return None
    return Activations(asked.pop("activations"), asked.pop("activation_range", "mse"))


def _refuse_rest(method: str, asked: Mapping[str, Any]) -> None:
    if asked:
        names = ", ".join(f"--{name.replace('_', '-')}" for name in asked)
        raise click.UsageError(f"{names}: not an option of {method}")


def _pair(text: str) -> tuple[int, int]:
    n, _, m = text.partition(":")
    if not (n.isdecimal() and m.isdecimal()):
        raise click.UsageError(f"--n-m: expected two numbers such as 2:4, got {text!r}")
    return int(n), int(m)


def schemes_by_pattern(given: tuple[str, ...]) -> dict[str, Scheme]:
    """``PATTERN=6``, ``PATTERN=keep`` or ``PATTERN={"method": ...}`` as schemes by pattern.

    Raises:
        click.UsageError: no equals sign.
        sd_compress.RecipeError: what is behind it is no scheme.
    """
    from sd_compress import Keep, RecipeError, scheme_from_json

    schemes: dict[str, Scheme] = {}
    for text in given:
        pattern, equals, wanted = text.partition("=")
        if not equals:
            raise click.UsageError(f"--weight: expected PATTERN=SCHEME, got {text!r}")
        if wanted == "keep":
            schemes[pattern] = Keep()
        else:
            try:
                value = json.loads(wanted)
                value = {"method": "palettize", "nbits": value} if type(value) is int else value
                schemes[pattern] = scheme_from_json(value, pattern)
            except (ValueError, RecursionError):
                raise RecipeError(
                    f"--weight: expected bits, keep or a scheme in JSON, got {wanted!r}"
                ) from None
    return schemes
