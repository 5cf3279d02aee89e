"""Damaged model files, loaded and run on the portable engine: what comes is a result or a typed error."""

import random
import tempfile
from contextlib import contextmanager
from pathlib import Path

import adversarial
import mil_graphs as graphs
import model_damage
import numpy as np
from sd_mil import MLModel, SdMilError
from sd_mil.format import read_model

#: Of the programs of one operation, as many are packages to damage, besides those of ``model_damage``.
_MORE = 40
_PORTS = ("fp32", "int32")
_LARGEST_INPUT = 1 << 20


@contextmanager
def seeds():
    """Valid models on disk, for as long as the context lasts."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        yield [*model_damage.seeds(root), *_single_operations(root)]


def _single_operations(root):
    made, seed = [], 0
    while len(made) < _MORE:
        program, arrays = adversarial.program(seed)
        seed += 1
        static = all(
            None not in one.type.shape and 0 not in one.type.shape and one.type.dtype in _PORTS
            for one in program.main.inputs
        )
        static = static and all(one.type.dtype in _PORTS for one in _results(program))
        if not static or not arrays or adversarial.compare(program, arrays) is not None:
            continue
        try:
            path = graphs.write(root, program, name=f"operation{seed}.mlpackage")
            MLModel(path, engine="reference").predict(arrays)
        except SdMilError:  # fails as it is: nothing to damage
            continue
        files = (graphs.model_file(path), graphs.weight_file(path))
        made.append(model_damage.Seed(path, {one: one.read_bytes() for one in files if one.exists()}))
    return made


def _results(program):
    return [one for operation in program.main.body.operations for one in operation.outputs]


def outcome(all_seeds, number):
    """Damage one of the models as ``number`` says, load it and run it: ``ran``, or the error's name.

    Raises: whatever is not a typed error.
    """
    draw = random.Random(number)
    seed = draw.choice(all_seeds)
    file = draw.choice(list(seed.files))
    choices = [draw.randrange(256) for _ in range(4 * draw.randint(1, 3))]
    data = draw.randbytes(32)
    file.write_bytes(model_damage.damaged(seed.files[file], file.name, choices, data))
    try:
        return _run(seed.path)
    except SdMilError as error:
        return type(error).__name__
    finally:
        file.write_bytes(seed.files[file])


def _run(path):
    model = MLModel(read_model(path))
    inputs = {port.name: _input(port) for port in model.description.inputs if not port.optional}
    model.predict(inputs, model.make_state() if model.states else None)
    return "ran"


def _input(port):
    if port.kind in ("int64", "double"):
        return 1
    if np.prod([float(size or 0) for size in port.shape]) > _LARGEST_INPUT:
        raise SdMilError("expected a smaller input")
    return np.ones([size or 0 for size in port.shape], port.dtype)
