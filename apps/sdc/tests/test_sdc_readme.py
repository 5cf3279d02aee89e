"""The commands of the README, run one after the other."""

import re
import shlex
from pathlib import Path

README = Path(__file__).parent.parent / "README.md"


def test_the_commands_work(sdc, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (block,) = re.findall(r"```sh\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    for line in block.splitlines():
        program, *arguments = shlex.split(line)
        assert program == "sdc"
        done = sdc(*arguments)
        assert done.status == 0, (line, done.err)
    assert (tmp_path / "star.png").exists()
    assert (tmp_path / "sdc-demo" / "demo.png").exists()
