"""Program -> Program: weights compressed as a recipe says, one after another in each of several threads."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Final, TypeAlias

import numpy as np
from sd_mil import Argument, Block, Constant, Function, Operation, Program, Reference, TensorType
from sd_mil.ir import storage_key

from ._blas import one_thread_each
from .activations import LayerInputs, activations_of, check_calibrated, quantize_inputs
from .errors import CompressionError, UnsuitableError
from .forms import Compressed, Sparse, operations
from .palettes import optimal_palette, palette_of
from .pruning import kept_elements
from .quantizing import quantized
from .recipe import Recipe, check_names
from .schemes import Joint, Keep, Linear, Palette, Palettize, Prune, Scheme
from .spool import Spool
from .targets import check_supported, target_of
from .weights import Array, Weight, weights_of

#: Finds the palette of a weight: :func:`optimal_palette`, or what calibration knows better.
Assign: TypeAlias = Callable[[Weight, Palettize], Palette]
#: Called with how many elements of how many are done, and the name of the weight that was the last.
Progress: TypeAlias = Callable[[int, int, str], None]

_KEEP: Final = Keep()
_NONE: Final[LayerInputs] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class WeightReport:
    """What became of a weight that the recipe names; ``kept`` says why it is as it was, if it is."""

    name: str
    function: str
    scheme: Scheme
    elements: int
    bytes_before: int
    bytes_after: int
    kept: str = ""


@dataclass(frozen=True, slots=True)
class CompressedProgram:
    """The program, and what became of each weight of the recipe in each function that has it."""

    program: Program
    weights: tuple[WeightReport, ...]

    @property
    def kept(self) -> tuple[WeightReport, ...]:
        """The weights that the recipe would have compressed and that are as they were."""
        return tuple(one for one in self.weights if one.kept)


def compress(
    program: Program,
    recipe: Recipe,
    *,
    assign: Assign = optimal_palette,
    inputs: LayerInputs = _NONE,
    progress: Progress | None = None,
    workers: int | None = None,
    folder: Path | None = None,
) -> CompressedProgram:
    """The program with the weights of ``recipe`` compressed, in all functions; nothing else changes.

    Schemes with activations take ``inputs``, which :func:`collect_activations` finds; those of a weight that
    is kept stay as they are, too.

    A weight that several functions or operations share is compressed once, and shared as before. One that its
    scheme does not fit (elements that are not finite, channels that groups do not divide, a table that takes
    more than the weight) is kept as it is, and reported. What is compressed waits in a temporary file in
    ``folder``. ``workers`` threads, as many as there are cores if None, read a weight each at a time.

    Raises:
        RecipeError: the recipe names weights that the program lacks; all of them are listed.
        UnsupportedFormError: a scheme that the program's target cannot decode.
        CompressionError: ``assign`` is given, but a scheme prunes first, which it does not know of.
        CalibrationError: a scheme has activations of which ``inputs`` says nothing, or of no layer.
    """
    check_recipe(program, recipe)
    check_calibrated(program, recipe.schemes, inputs)
    weights = _changing(program, recipe)
    _check_schemes(weights, recipe, assign)
    names = frozenset(_defined(program))
    spool = Spool(folder)

    def made(weight: Weight) -> _Made:
        return _compressed(weight, recipe.schemes[weight.name], program, assign, spool, names)

    jobs = _jobs(weights, recipe)
    done = _in_threads(list(jobs.values()), made, progress, workers)
    results = dict(zip(jobs, done, strict=True))
    found = {(one.function, one.name): results[_key(one, recipe)] for one in weights}
    reports = tuple(_report(one, recipe, found[one.function, one.name]) for one in weights)
    functions = {
        name: replace(function, body=_replaced(function.body, _replacements(function, weights, found)))
        for name, function in _with_quantized_inputs(program, recipe, inputs, reports)
    }
    return CompressedProgram(replace(program, functions=functions), reports)


def _with_quantized_inputs(
    program: Program, recipe: Recipe, inputs: LayerInputs, reports: Iterable[WeightReport]
) -> Iterator[tuple[str, Function]]:
    """The functions by name, with integers as inputs of the layers whose weights became integers."""
    kept = {(one.function, one.name) for one in reports if one.kept}
    for name, function in program.functions.items():
        schemes = {
            weight: scheme
            for weight, scheme in recipe.schemes.items()
            if activations_of(scheme) is not None and (name, weight) not in kept
        }
        yield name, quantize_inputs(function, schemes, inputs) if schemes else function


@dataclass(frozen=True, slots=True)
class _Made:
    """The operations that decode the weight ``name``; none, and why, if it is kept."""

    name: str
    operations: tuple[Operation, ...] = ()
    kept: str = ""


def encode_weight(weight: Weight, scheme: Scheme, assign: Assign = optimal_palette) -> Compressed:
    """The weight as the scheme has it.

    Raises:
        UnsuitableError: the scheme does not fit the weight.
    """
    if isinstance(scheme, Palettize):
        return assign(weight, scheme)
    values = weight.read()
    if isinstance(scheme, Linear):
        return quantized(weight, values, scheme)
    if isinstance(scheme, Prune):
        return Sparse(kept_elements(weight, values, scheme), values, None)
    if isinstance(scheme, Joint):
        return _joint(weight, values, scheme)
    raise TypeError(f"expected a scheme that changes the weight, got {scheme}")


def _joint(weight: Weight, values: Array, scheme: Joint) -> Sparse:
    mask = kept_elements(weight, values, scheme.prune)
    pruned = np.where(mask, values, np.zeros((), values.dtype))
    if isinstance(scheme.then, Palettize):
        return Sparse(mask, pruned, palette_of(weight, pruned, scheme.then, mask))
    return Sparse(mask, pruned, quantized(weight, pruned, scheme.then, mask))


def check_recipe(program: Program, recipe: Recipe) -> None:
    """Refuse a recipe that :func:`compress` would refuse, before anything is done.

    Raises:
        RecipeError: the recipe names weights that the program lacks; all of them are listed.
        UnsupportedFormError: a scheme that the program's target cannot decode.
    """
    check_names(recipe, [program])
    check_forms(program, recipe)


def check_forms(program: Program, recipe: Recipe) -> None:
    """Refuse schemes of weights of the program that its target cannot decode; other names are passed over.

    Raises:
        UnsupportedFormError: naming the first target that can.
    """
    for weight in _changing(program, recipe):
        target = target_of(program.functions[weight.function].opset)
        check_supported(weight.name, recipe.schemes[weight.name], target)


def _changing(program: Program, recipe: Recipe) -> list[Weight]:
    weights = weights_of(program)
    return [weight for weight in weights if not isinstance(recipe.schemes.get(weight.name, _KEEP), Keep)]


def _check_schemes(weights: Iterable[Weight], recipe: Recipe, assign: Assign) -> None:
    for weight in weights:
        scheme = recipe.schemes[weight.name]
        is_joint = isinstance(scheme, Joint) and isinstance(scheme.then, Palettize)
        if is_joint and assign is not optimal_palette:
            raise CompressionError(f"{weight.name}: expected a palette without pruning, got {scheme}")


def _compressed(
    weight: Weight, scheme: Scheme, program: Program, assign: Assign, spool: Spool, names: frozenset[str]
) -> _Made:
    try:
        encoded = encode_weight(weight, scheme, assign)
    except UnsuitableError as error:
        return _Made(weight.name, kept=str(error))
    target = target_of(program.functions[weight.function].opset)
    made = operations(weight, encoded, target, spool.constant, names)
    before, after = _bytes(weight.constant), _bytes_of(made)
    if after >= before:
        return _Made(weight.name, kept=f"it would take {after} bytes instead of {before}")
    return _Made(weight.name, made)


def _jobs(weights: Iterable[Weight], recipe: Recipe) -> dict[Hashable, Weight]:
    """One weight of all that are stored together and are to be compressed alike."""
    jobs: dict[Hashable, Weight] = {}
    for weight in weights:
        jobs.setdefault(_key(weight, recipe), weight)
    return jobs


def _key(weight: Weight, recipe: Recipe) -> Hashable:
    form = (weight.shape, weight.output_axis, weight.input_axis)
    return storage_key(weight.constant), recipe.schemes[weight.name], form


def _in_threads(
    weights: list[Weight], made: Callable[[Weight], _Made], progress: Progress | None, workers: int | None
) -> list[_Made]:
    """What is made of each weight, in their order; the largest are begun with."""
    total, done = sum(weight.elements for weight in weights), 0
    count = min(workers or os.cpu_count() or 1, max(1, len(weights)))
    executor, stack = ThreadPoolExecutor(count), ExitStack()
    if count > 1:
        stack.enter_context(one_thread_each())
    try:
        ordered = sorted(weights, key=lambda weight: -weight.elements)
        futures: dict[Future[_Made], Weight] = {executor.submit(made, one): one for one in ordered}
        results = {}
        for future in as_completed(futures):
            weight = futures[future]
            results[id(weight)] = future.result()
            done += weight.elements
            if progress is not None:
                progress(done, total, weight.name)
    finally:
        executor.shutdown(cancel_futures=True)
        stack.close()
    return [results[id(weight)] for weight in weights]


def _report(weight: Weight, recipe: Recipe, made: _Made) -> WeightReport:
    before = _bytes(weight.constant)
    after = _bytes_of(made.operations) if made.operations else before
    scheme = recipe.schemes[weight.name]
    return WeightReport(weight.name, weight.function, scheme, weight.elements, before, after, made.kept)


def _replacements(
    function: Function, weights: Iterable[Weight], found: Mapping[tuple[str, str], _Made]
) -> dict[str, tuple[Operation, ...]]:
    """The operations that take the place of each ``const`` of the function."""
    made = {one.name: found[one.function, one.name] for one in weights if one.function == function.name}
    return {
        name: tuple(_renamed(operation, one.name, name) for operation in one.operations)
        for name, one in made.items()
        if one.operations
    }


def _renamed(operation: Operation, old: str, new: str) -> Operation:
    """The operation for another weight that is stored with the first."""
    if old == new:
        return operation

    def name(given: str) -> str:
        return new + given.removeprefix(old)

    def argument(given: Argument) -> Argument:
        return Reference(name(given.name)) if isinstance(given, Reference) else given

    return replace(
        operation,
        name=name(operation.name),
        inputs={key: tuple(map(argument, values)) for key, values in operation.inputs.items()},
        outputs=tuple(replace(one, name=name(one.name)) for one in operation.outputs),
        attributes={**operation.attributes, "name": Constant(TensorType("string", ()), name(operation.name))},
    )


def _replaced(block: Block, replacements: Mapping[str, tuple[Operation, ...]]) -> Block:
    made: list[Operation] = []
    for operation in block.operations:
        if operation.type == "const" and operation.outputs[0].name in replacements:
            made.extend(replacements[operation.outputs[0].name])
        elif operation.blocks:
            made.append(
                replace(operation, blocks=tuple(_replaced(one, replacements) for one in operation.blocks))
            )
        else:
            made.append(operation)
    return replace(block, operations=tuple(made))


def _defined(program: Program) -> Iterator[str]:
    for name, function in program.functions.items():
        yield from (variable.name for variable in function.inputs)
        yield from (one.name for operation in program.operations(name) for one in operation.outputs)


def _bytes_of(made: Iterable[Operation]) -> int:
    """What the constants of these operations take."""
    return sum(_bytes(one) for operation in made for one in _constants(operation))


def _constants(operation: Operation) -> Iterator[Constant]:
    yield from operation.attributes.values()
    for arguments in operation.inputs.values():
        yield from (one for one in arguments if isinstance(one, Constant))


def _bytes(constant: Constant) -> int:
    if constant.stored or isinstance(constant.content, str):
        return constant.stored
    return 4 * math.prod(size or 0 for size in constant.type.shape)
