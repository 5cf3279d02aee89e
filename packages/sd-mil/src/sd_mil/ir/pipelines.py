"""The programs of a model that may be a pipeline, and the model with others in their places."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from sd_mil.ir.program import Package, Pipeline, Suppression


def programs_in(model: Package | Pipeline | Suppression, name: str = "") -> Iterator[tuple[str, Package]]:
    """Every program by where it is: ``name``, and in a pipeline that with ``/`` and the model's own name."""
    if isinstance(model, Package):
        yield name, model
    elif isinstance(model, Pipeline):
        for inner, one in model.models.items():
            yield from programs_in(one, f"{name}/{inner}")


def with_programs(
    model: Package | Pipeline, programs: Mapping[str, Package], name: str = ""
) -> Package | Pipeline:
    """The model with these programs instead of those of the same names; the same object where all are its.

    A pipeline keeps its ports. Where its version is that of its newest model, it follows that.
    """
    if isinstance(model, Package):
        return programs.get(name, model)
    models = {
        inner: one if isinstance(one, Suppression) else with_programs(one, programs, f"{name}/{inner}")
        for inner, one in model.models.items()
    }
    if all(models[inner] is one for inner, one in model.models.items()):
        return model
    follows = model.specification_version == _newest(model.models.values())
    version = _newest(models.values()) if follows else model.specification_version
    return replace(model, models=models, specification_version=version)


def _newest(models: Iterable[Package | Pipeline | Suppression]) -> int:
    return max(one.specification_version for one in models)
