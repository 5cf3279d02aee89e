"""Damaged and hostile models of every kind: a typed error or an answer, at once and in little memory."""

import resource

import mil_graphs as graphs
import model_damage
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sd_mil import MLModel, SdMilError


@pytest.fixture(scope="module")
def seeds(tmp_path_factory):
    return model_damage.seeds(tmp_path_factory.mktemp("seeds"))


@pytest.fixture(autouse=True)
def short_loops(monkeypatch):
    """Damage can make a loop one that does not end: it is to be stopped soon."""
    monkeypatch.setattr("sd_mil.ir.limits.MAX_ITERATIONS", 100)


def test_every_seed_runs_before_it_is_damaged(seeds):
    assert [model_damage._run(seed.path) for seed in seeds] == ["ran"] * len(seeds)


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 255), st.integers(0, 255), st.lists(st.integers(0, 255), min_size=4, max_size=12))
def test_damage_never_escapes(seeds, seed, file, edits):
    model_damage.outcome(seeds, [seed, file, *edits], bytes([seed, file, *edits]))


def bomb(kind, out, **inputs):
    made = graphs.program({"x": ("fp32", 2)}, [graphs.call(kind, "y", out, **inputs)], ["y"])
    return made, graphs.Description(
        (graphs.Port("x", (2,), "float32"),),
        (graphs.Port("y", tuple(out[1:]), "int32" if out[0] == "int32" else "float32"),),
    )


I32 = np.int32
BOMBS = {
    "fill": bomb(
        "fill",
        ("fp32", None, None),
        shape=graphs.tensor(I32([2**20, 2**17])),
        value=graphs.tensor(np.float32(0)),
    ),
    "tile": bomb("tile", ("fp32", None), x="x", reps=graphs.tensor(I32([2**30]))),
    "pad": bomb(
        "pad",
        ("fp32", None),
        x="x",
        pad=graphs.tensor(I32([0, 2**31 - 1])),
        mode=graphs.tensor("constant"),
        constant_val=graphs.tensor(np.float32(0)),
    ),
    "range_1d": bomb(
        "range_1d",
        ("int32", None),
        start=graphs.tensor(I32(0)),
        end=graphs.tensor(I32(2**31 - 1)),
        step=graphs.tensor(I32(1)),
    ),
    "nothing": bomb("relu", ("fp32", None, None), x=graphs.tensor(np.zeros((2**30, 0), np.float32))),
    "declared": bomb("relu", ("fp32", 2**40), x="x"),
}


@pytest.mark.parametrize("engine", ["reference", "portable"])
@pytest.mark.parametrize("name", BOMBS)
def test_small_programs_cannot_ask_for_much_memory(tmp_path, name, engine):
    if engine == "portable":
        pytest.importorskip("openvino")
    made, described = BOMBS[name]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(SdMilError, match=r"at most|more than|compiles"):
        MLModel(graphs.write(tmp_path, made, described), engine=engine).predict({"x": np.ones(2, np.float32)})
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1 << 20  # KiB
