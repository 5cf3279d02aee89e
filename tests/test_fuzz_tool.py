"""The fuzzers of ``tools/`` run, and see what they are there to see."""

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("openvino")

TOOLS = Path(__file__).resolve().parent.parent / "tools"
PLANTED = """
import sys, os, signal
sys.path.insert(0, {tools!r})
import fuzz_engines
sys.path.insert(0, str(fuzz_engines._TESTS))
import adversarial
def planted(numbers):
    if 2 in numbers:
        os.kill(os.getpid(), signal.SIGSEGV)
    return {{number: "differs" for number in numbers if number == 1}}
adversarial.differences = planted
if "--child" in sys.argv:
    sys.exit(fuzz_engines.main())
fuzz_engines.__file__ = __file__
sys.exit(fuzz_engines.main(["--count", "4"]))
"""


@pytest.mark.parametrize("options", [(), ("--damaged",)])
def test_it_runs(options):
    command = [sys.executable, TOOLS / "fuzz_engines.py", "--first", "3", "--count", "5", *options]
    child = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert child.returncode == 0, child.stdout + child.stderr
    assert child.stdout == "5 inputs from 3 on: 0 findings\n"


def test_it_sees_signals_and_differences(tmp_path):
    script = tmp_path / "planted.py"
    script.write_text(PLANTED.format(tools=str(TOOLS)))
    child = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=120)
    assert child.returncode == 1, child.stderr
    assert child.stdout.splitlines() == [
        "1: differs",
        "2: the process ended with SIGSEGV",
        "4 inputs from 0 on: 2 findings",
    ]
