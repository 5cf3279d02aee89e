import re
from pathlib import Path

README = Path(__file__).resolve().parents[1] / "README.md"


def test_the_example_runs(capsys):
    (block,) = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    exec(compile(block, str(README), "exec"), {})  # noqa: S102
    ports, arithmetic, measure = capsys.readouterr().out.splitlines()
    assert ports == "x: float16[2, 3] -> y: float16[2, 3]"
    assert arithmetic.startswith("reference engine, numpy")
    assert measure == "inf dB"


def test_it_is_short():
    assert len(README.read_text().splitlines()) < 80
