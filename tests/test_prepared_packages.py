"""A component may be loaded from another package than the bundle's, if it has the same ports."""

from dataclasses import replace

import numpy as np
import pytest
from sd_compress import Palettize, palettize, uniform_recipe
from sd_mil import MLModel
from sd_runtime import PortsError, open_bundle, open_model


def test_what_is_prepared_is_what_runs(bundle):
    opened = open_bundle(bundle)
    component = opened.component("text_encoder")
    made = []

    def prepare(package):
        recipe = uniform_recipe(package.program, Palettize(2))
        made.append(replace(package, program=palettize(package.program, recipe)))
        return made[-1]

    port = component.inputs[0]
    ids = {port.name: np.arange(np.prod(port.shape)).reshape(port.shape).astype(port.dtype)}
    got = open_model(opened, component, engine="portable", prepare=prepare).predict(ids)
    expected, original = (MLModel(model).predict(ids) for model in (made[0], opened.package(component)))
    for name, value in expected.items():
        np.testing.assert_array_equal(got[name], value)
        assert not np.array_equal(original[name], value)


def test_other_ports_are_refused(bundle):
    opened = open_bundle(bundle)

    def prepare(package):
        ports = tuple(replace(port, name="renamed") for port in package.description.inputs)
        return replace(package, description=replace(package.description, inputs=ports))

    with pytest.raises(PortsError, match="renamed"):
        open_model(opened, opened.component("text_encoder"), engine="portable", prepare=prepare)
