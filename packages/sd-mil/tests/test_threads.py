"""What one thread computes, many threads compute: every object that looks immutable, shared by many."""

import copy
import pickle
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import mil_graphs as graphs
import numpy as np
import pytest
from sd_mil import (
    Block,
    Description,
    Function,
    MLModel,
    Operation,
    Package,
    Pipeline,
    Port,
    Program,
    Reference,
    StateType,
    TensorType,
    Variable,
)
from sd_mil.cache import Cache, store_anywhere
from sd_mil.storage import Layout

THREADS, JOBS = 12, 120
ENGINES = ("portable", "reference")


@pytest.fixture(autouse=True)
def hasty():
    """Threads change places much more often than they do otherwise."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


def in_threads(work, jobs):
    """``work`` of every job, in order, from threads that all begin at once."""
    barrier = threading.Barrier(THREADS)
    with ThreadPoolExecutor(THREADS, initializer=barrier.wait) as pool:
        return list(pool.map(work, jobs))


def same_from_threads(run, jobs):
    """Hold ``run`` in threads to ``run`` in this one, to the bit."""
    expected = [run(job) for job in jobs]
    assert any(not np.array_equal(expected[0], other) for other in expected[1:])
    for index, value in enumerate(in_threads(run, jobs * (JOBS // len(jobs)))):
        np.testing.assert_array_equal(value, expected[index % len(jobs)])


def dense(kind="tanh", first="x", last="y", size=64):
    """``last`` = kind(``first`` · w)."""
    weights = np.random.default_rng(1).standard_normal((size, size)).astype(np.float32)
    return graphs.program(
        {first: ("fp32", 8, size)},
        [
            graphs.const("w", weights),
            graphs.call("matmul", "product", ("fp32", 8, size), x=first, y="w"),
            graphs.call(kind, last, ("fp32", 8, size), x="product"),
        ],
        [last],
    )


def in_parts():
    """A product, a suppression of boxes, which is always left to numpy, and an operation on what it kept."""
    made = dense()
    operations = list(made.main.body.operations)
    operations.append(
        Operation(
            "non_maximum_suppression",
            "nms",
            {
                "boxes": (Reference("boxes"),),
                "scores": (Reference("scores"),),
                "max_boxes": (graphs.tensor(np.int32(4)),),
                "iou_threshold": (graphs.tensor(np.float32(0.2)),),
                "score_threshold": (graphs.tensor(np.float32(0.1)),),
            },
            (
                graphs.variable("kept", ("fp32", 1, 4, 4)),
                graphs.variable("kept_scores", ("fp32", 1, 4, 2)),
                graphs.variable("indices", ("int32", 1, 4)),
                graphs.variable("count", ("int32", 1)),
            ),
        )
    )
    shape = graphs.tensor(np.array([1, 128, 4], np.int32))
    operations.insert(-1, graphs.call("reshape", "boxes", ("fp32", 1, 128, 4), x="y", shape=shape))
    scores = graphs.tensor(np.random.default_rng(2).random((1, 128, 2)).astype(np.float32))
    operations.insert(
        -1, Operation("const", "s", {}, (graphs.variable("scores", ("fp32", 1, 128, 2)),), {"val": scores})
    )
    operations.append(graphs.call("exp", "z", ("fp32", 1, 4, 4), x="kept"))
    return Program(
        {"main": Function("main", "CoreML6", Block(made.main.body.inputs, tuple(operations), ("z",)))}
    )


def inputs(count=6):
    generator = np.random.default_rng(7)
    return [generator.standard_normal((8, 64)).astype(np.float32) for _ in range(count)]


def package(made):
    return Package("made here", 9, graphs.description(made), made, 0)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("make", [dense, in_parts])
def test_one_model_in_many_threads(engine, make):
    if engine == "portable":
        pytest.importorskip("openvino")
    model = MLModel(package(make()), engine)
    (output,) = model.outputs
    same_from_threads(lambda x: model.predict({"x": x})[output], inputs())


@pytest.mark.parametrize("engine", ENGINES)
def test_one_pipeline_of_models_in_many_threads(engine):
    if engine == "portable":
        pytest.importorskip("openvino")
    first, second = dense("tanh", "x", "h"), dense("sigmoid", "h", "y")
    described = Description(graphs.description(first).inputs, graphs.description(second).outputs)
    models = {"first": package(first), "second": package(second)}
    model = MLModel(Pipeline("made here", 9, described, models, 0), engine)
    same_from_threads(lambda x: model.predict({"x": x})["y"], inputs())


def counting():
    """A model that adds ``x`` to its state and returns the sum."""
    kind = TensorType("fp32", (2,))
    operations = (
        graphs.call("read_state", "old", ("fp32", 2), input="acc"),
        graphs.call("add", "sum", ("fp32", 2), x="old", y="x"),
        Operation("write_state", "write", {"input": (Reference("acc"),), "data": (Reference("sum"),)}, ()),
    )
    made = Program(
        {
            "main": Function(
                "main",
                "CoreML8",
                Block((Variable("x", kind), Variable("acc", StateType(kind))), operations, ("sum",)),
            )
        }
    )
    ports = (Port("x", (2,), "float32"),), (Port("sum", (2,), "float32"),)
    described = Description(*ports, states=(Port("acc", (2,), "float32", kind="state"),))
    return Package("made here", 9, described, made, 0)


@pytest.mark.parametrize("engine", ENGINES)
def test_no_prediction_is_lost_on_a_shared_state(engine):
    """The sums are those of any order: each prediction adds one, so they are 1, 2, 3, …, each once."""
    if engine == "portable":
        pytest.importorskip("openvino")
    model = MLModel(counting(), engine)
    state, one = model.make_state(), np.ones(2, np.float32)
    sums = in_threads(lambda _: model.predict({"x": one}, state)["sum"].tolist(), range(JOBS))
    assert sorted(sums) == [[float(count), float(count)] for count in range(1, JOBS + 1)]
    assert state.read_state("acc").tolist() == [JOBS, JOBS]


@pytest.mark.parametrize("engine", ENGINES)
def test_each_thread_with_a_state_of_its_own(engine):
    if engine == "portable":
        pytest.importorskip("openvino")
    model = MLModel(counting(), engine)

    def sums(step):
        state = model.make_state()
        return [model.predict({"x": np.full(2, step, np.float32)}, state)["sum"].tolist() for _ in range(5)]

    for step, got in enumerate(in_threads(sums, range(40))):
        assert got == [[float(step * count)] * 2 for count in range(1, 6)]


@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, lambda state: pickle.loads(pickle.dumps(state))])  # noqa: S301
def test_a_copy_of_a_state_goes_on_by_itself(again):
    model = MLModel(counting(), "reference")
    state, one = model.make_state(), np.ones(2, np.float32)
    model.predict({"x": one}, state)
    other = again(state)
    model.predict({"x": one}, state)
    assert model.predict({"x": one * 10}, other)["sum"].tolist() == [11, 11]
    assert state.read_state("acc").tolist() == [2, 2]


def test_models_made_in_many_threads_at_once():
    pytest.importorskip("openvino")
    made, (x, *_) = package(dense()), inputs(1)
    expected = MLModel(made).predict({"x": x})["y"]
    for got in in_threads(lambda _: MLModel(made).predict({"x": x})["y"], range(THREADS)):
        np.testing.assert_array_equal(got, expected)


LAYOUT = Layout(((np.dtype(np.float32), (512,)),))


def content(number):
    return [np.full(512, number, np.float32)]


def through_cache(folder, number):
    """What an entry holds, whoever writes it; the limit has room for three, so that entries come and go."""
    cache, key = Cache(folder, 3 * LAYOUT.length), number.to_bytes(32, "little")
    found = cache.load(key, LAYOUT)
    arrays = store_anywhere(cache, key, LAYOUT, lambda: content(number)) if found is None else found
    return float(arrays[0].min()), float(arrays[0].max())


def test_one_cache_in_many_threads(tmp_path):
    numbers = [index % 5 for index in range(JOBS)]
    got = in_threads(lambda number: through_cache(tmp_path, number), numbers)
    assert got == [(float(number), float(number)) for number in numbers]
    assert not list(tmp_path.glob("*.partial"))


PROCESS = """
import sys
from pathlib import Path
import numpy as np
from sd_mil.cache import Cache, store_anywhere
from sd_mil.storage import Layout

layout = Layout(((np.dtype(np.float32), (512,)),))
cache = Cache(Path(sys.argv[1]), 3 * layout.length)
for index in range(100):
    number = (index + int(sys.argv[2])) % 5
    key = number.to_bytes(32, "little")
    arrays = cache.load(key, layout) or store_anywhere(
        cache, key, layout, lambda: [np.full(512, number, np.float32)]
    )
    assert (arrays[0] == number).all(), (number, arrays[0])
"""


def test_one_cache_in_several_processes(tmp_path):
    processes = [
        subprocess.Popen([sys.executable, "-c", PROCESS, tmp_path, str(start)]) for start in range(3)
    ]
    assert [process.wait() for process in processes] == [0, 0, 0]
    assert not list(tmp_path.glob("*.partial"))
