"""Hostile programs: the engines agree on values or on refusing, in a child process that has to survive."""

import subprocess
import sys
import textwrap
from pathlib import Path

import adversarial
import mil_graphs as graphs
import numpy as np
import pytest
from sd_mil import PackageError

pytest.importorskip("openvino")

CHILD = """
    import sys
    sys.path.insert(0, {tests!r})
    from sd_mil.ir import limits
    limits.MAX_COMPUTED_ELEMENTS, limits.MAX_DECLARED_BYTES = 1 << 20, 1 << 22
    import adversarial
    for seed in range({first}, {first} + {count}, 10):
        print(seed, flush=True)
        if found := adversarial.differences(range(seed, seed + 10)):
            sys.exit(str(found))
"""


@pytest.mark.parametrize("first", [0, 100, 200])
def test_hostile_programs(first):
    code = textwrap.dedent(CHILD).format(tests=str(Path(__file__).parent), first=first, count=100)
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert child.returncode == 0, f"at {child.stdout.split()[-1:]}: {child.stderr[-700:]}"
    assert len(child.stdout.split()) == 10


class Planted:
    """A portable engine with a fault: values that are off, an error of Python's own, or none at all."""

    def __init__(self, made, fault):
        from sd_mil.engines.portable import compile_program

        self.compiled, self.fault = compile_program(made), fault

    def run(self, arrays):
        if self.fault == "untyped":
            raise ZeroDivisionError("of its own")
        if self.fault == "typed":
            raise PackageError("expected something else")
        return {name: value + (self.fault == "off") for name, value in self.compiled.run(arrays).items()}


@pytest.mark.parametrize(
    ("fault", "said"), [("none", None), ("off", "|"), ("untyped", "ZeroDivisionError"), ("typed", "ran")]
)
def test_the_check_sees_faults(fault, said):
    operation = graphs.call("softmax", "y", ("fp32", 2, 3), x="x", axis=graphs.tensor(np.int32(-1)))
    made = graphs.program({"x": ("fp32", 2, 3)}, [operation], ["y"])
    arrays = {"x": np.ones((2, 3), np.float32)}
    found = adversarial.compare(made, arrays, lambda one: Planted(one, fault))
    assert (found is None) if said is None else said in found


def test_programs_that_are_compiled_as_one_are_told_apart(monkeypatch):
    """Of ten, one of which the portable engine computes wrongly."""
    from sd_mil.engines import portable

    real = portable.compile_program
    seeds = list(range(400, 410))
    assert adversarial.differences(seeds) == {}
    wrong = next(
        seed for seed in seeds if adversarial.program(seed)[0].main.body.operations[0].type != "shape"
    )

    class Off:
        def __init__(self, made):
            self.compiled = real(made)

        def run(self, arrays):
            results = self.compiled.run(arrays)
            return {
                name: value + 1 if _is_of(name, wrong, results) else value for name, value in results.items()
            }

    def _is_of(name, seed, results):
        return name.startswith(f"{seed}_") or len(results) < 3

    looked_at = []
    compare = adversarial.compare
    monkeypatch.setattr(portable, "compile_program", Off)
    monkeypatch.setattr(adversarial, "compare", lambda *one: looked_at.append(one) or compare(*one))
    found = adversarial.differences(seeds)
    assert wrong in found
    assert len(looked_at) < len(seeds)


def test_programs_are_functions_of_their_seeds():
    for seed in range(20):
        (first, arrays), (second, others) = adversarial.program(seed), adversarial.program(seed)
        assert str(first) == str(second)
        assert all(np.array_equal(one, others[name], equal_nan=True) for name, one in arrays.items())
