"""What the pipeline asks of a network, and two ways to get one: from a bundle, or from a plain function."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from threading import RLock
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt
from sd_bundle import Bundle, BundleComponent, Chunk, ComputeUnit, PortsError, PortSpec, Variant

from sd_runtime.errors import EngineError, NumericsError

if TYPE_CHECKING:
    from sd_mil import Package, Pipeline
    from sd_mil.engines import Engine

Array: TypeAlias = npt.NDArray[np.generic]
Precision: TypeAlias = Literal["fp32", "bf16"]


class Model(Protocol):
    """A network: named arrays in, named arrays out. coremltools' and sd-mil's ``MLModel`` both are one."""

    def predict(self, inputs: Mapping[str, Array], /) -> Mapping[str, Array]:
        """Run once. ``inputs`` has every input port, in its shape and dtype."""
        ...


@dataclass(frozen=True, slots=True)
class FunctionModel:
    """A model that calls a Python function with the ports as keyword arguments, for tests and experiments.

    Example:
        >>> double = FunctionModel(lambda x: {"y": 2 * x})
        >>> double.predict({"x": np.float32([1, 2])})
        {'y': array([2., 4.], dtype=float32)}
    """

    function: Callable[..., Mapping[str, Array]]

    def predict(self, inputs: Mapping[str, Array], /) -> Mapping[str, Array]:
        """Call the function."""
        return self.function(**inputs)


@dataclass(frozen=True, slots=True)
class ChunkedModel:
    """A network in chunks that run one after the other, ``models`` in the order of ``variant.chunks``.

    What chunks pass on is cast to the dtype of the port that takes it.
    """

    variant: Variant
    models: tuple[Model, ...]

    def predict(self, inputs: Mapping[str, Array], /) -> Mapping[str, Array]:
        """Run every chunk once; the outputs that none of them takes."""
        values = dict(inputs)
        for chunk, model in zip(self.variant.chunks, self.models, strict=True):
            given = {p.name: np.asarray(values[p.name]).astype(p.dtype, copy=False) for p in chunk.inputs}
            results = model.predict(given)
            values |= {port.name: results[port.name] for port in chunk.outputs}
        return {port.name: values[port.name] for port in self.variant.outputs}


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model together with the ports that the manifest states for it.

    Threads may share it: the model runs once at a time. Core ML asks for that, and functions may need it.
    """

    component: BundleComponent
    model: Model
    _running: RLock = field(default_factory=RLock, init=False, repr=False, compare=False)

    @property
    def _packages(self) -> str:
        return ", ".join(self.component.packages)

    def input(self, name: str) -> PortSpec:
        """The input port ``name``.

        Raises:
            PortsError: the component has no such input.
        """
        return _port(self.component.inputs, name, f"{self.component.name} input")

    def predict(self, output: str, **inputs: Array) -> npt.NDArray[np.float32]:
        """Run with ``inputs``, each cast to its port's dtype, and return ``output`` as float32.

        Raises:
            PortsError: the component has no such input or output, or one of another shape.
            NumericsError: the output holds NaN or infinity.
        """
        return self.predict_all([output], **inputs)[output]

    def predict_all(self, outputs: Sequence[str], **inputs: Array) -> dict[str, npt.NDArray[np.float32]]:
        """As :meth:`predict`, for several outputs of one run."""
        for output in outputs:
            _port(self.component.outputs, output, f"{self.component.name} output")
        given = {name: self._cast(name, value) for name, value in inputs.items()}
        with self._running:
            results = self.model.predict(given)
        return {output: self._checked(output, results[output]) for output in outputs}

    def _cast(self, name: str, value: Array) -> Array:
        port = self.input(name)
        if value.shape != port.shape:
            raise PortsError(
                f"expected {name!r} of shape {list(port.shape)} for {self._packages}, "
                f"got {list(value.shape)}: the bundle's components do not fit together"
            )
        return value.astype(port.dtype, copy=False)

    def _checked(self, output: str, value: Array) -> npt.NDArray[np.float32]:
        result = np.asarray(value, dtype=np.float32)
        if not (finite := np.isfinite(result)).all():
            raise NumericsError(
                f"expected finite numbers in {output!r} of {self._packages}, got NaN or infinity in "
                f"{result.size - finite.sum()} of {result.size}: fp16 overflowed, or a file is damaged"
            )
        return result


def _port(ports: tuple[PortSpec, ...], name: str, what: str) -> PortSpec:
    for port in ports:
        if port.name == name:
            return port
    raise PortsError(f"expected the {what} {name!r}, got only {', '.join(port.name for port in ports)}")


def resolve_engine(engine: str | Engine, precision: Precision | None = None) -> Engine:
    """The engine of that name in :data:`sd_mil.engines.ENGINES`; ``auto`` is Core ML on a Mac, else portable.

    Raises:
        EngineError: an unknown engine or precision, Core ML elsewhere, or a precision that the engine lacks.
    """
    from sd_mil import EngineError as NoSuchEngineError
    from sd_mil.engines import engine_named

    try:
        return engine_named(engine, precision=precision)
    except NoSuchEngineError as error:
        raise EngineError(str(error)) from error


def precision_of(engine: Engine) -> str:
    """What the engine computes floats in: ``package`` where that is as the package has it."""
    from sd_mil.engines import ModelEngine

    return "package" if isinstance(engine, ModelEngine) else str(getattr(engine, "precision", "fp32"))


def open_model(
    bundle: Bundle,
    component: BundleComponent,
    *,
    engine: str | Engine = "auto",
    precision: Precision | None = None,
    prepare: Callable[[Package], Package] | None = None,
) -> Model:
    """Load the packages of ``component`` into ``engine``.

    Core ML runs it on the compute unit that the component was converted for, unless the engine names another.
    What ``prepare`` makes of a package is loaded in its place: a compressed one, say. It has to have the same
    ports.

    Raises:
        UnsupportedBundleError: the component is for several picture sizes; ``Bundle.at_size`` chooses.
        IntegrityError: the package is not the one that was opened with the bundle.
        PortsError: the package's own ports are not the manifest's.
        EngineError: see :func:`resolve_engine`.
        sd_mil.SdMilError: the package is malformed, or has an operation that the engine does not know.
    """
    resolved = resolve_engine(engine, precision)
    variant = component.variant
    models = tuple(
        _open_chunk(bundle, chunk, component.compute_unit, resolved, prepare) for chunk in variant.chunks
    )
    return models[0] if len(models) == 1 else ChunkedModel(variant, models)


def _open_chunk(
    bundle: Bundle,
    chunk: Chunk,
    compute_unit: ComputeUnit,
    engine: Engine,
    prepare: Callable[[Package], Package] | None,
) -> Model:
    from sd_mil import MLModel, Package, read_model
    from sd_mil.engines import CoreML

    if isinstance(engine, CoreML) and engine.compute_unit is None:
        engine = replace(engine, compute_unit=compute_unit)
    with bundle.unchanged(chunk.package):
        package = read_model(bundle.checked_folder(chunk.package))
        if prepare is not None and isinstance(package, Package):
            package = prepare(package)
        _check_ports(package, chunk)
        return MLModel(package, engine, function_name=chunk.function)


def _check_ports(package: Package | Pipeline, chunk: Chunk) -> None:
    """Hold the package's own description against the manifest."""
    from sd_mil import Pipeline

    description = package.description
    if isinstance(package, Pipeline):
        if chunk.function is not None:
            raise PortsError(f"{chunk.package}: expected a function {chunk.function!r}, got a pipeline")
    elif chunk.function not in (None, package.program.default_function):
        if chunk.function not in package.descriptions:
            have = ", ".join(package.descriptions) or package.program.default_function
            raise PortsError(f"{chunk.package}: expected a function {chunk.function!r}, got only {have}")
        description = package.descriptions[chunk.function]
    sides = ((chunk.inputs, description.inputs), (chunk.outputs, description.outputs))
    for ours, theirs in sides:
        stated, found = {str(port) for port in ours}, {str(port) for port in theirs}
        if stated != found:
            raise PortsError(
                f"{chunk.package}: expected the manifest's port {_listed(stated - found)}, "
                f"got {_listed(found - stated)} in the package itself"
            )


def _listed(ports: set[str]) -> str:
    return "; ".join(sorted(ports)) or "none"
