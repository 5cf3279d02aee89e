"""Completion scripts are click's, and what they ask the programme for is answered."""

import shutil
import subprocess

import pytest
from click.testing import CliRunner
from sdc.cli import cli
from sdc.commands import completion


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.delenv("ZDOTDIR", raising=False)
    return tmp_path


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_script_is_printed(sdc, shell):
    done = sdc("completion", shell)
    assert done.status == 0
    assert f"_SDC_COMPLETE={shell}_complete" in done.out
    if shutil.which(shell):
        subprocess.run([shell, "-n"], input=done.out, text=True, check=True)


def test_the_shell_is_answered(monkeypatch):
    environment = {"_SDC_COMPLETE": "bash_complete", "COMP_WORDS": "sdc ver", "COMP_CWORD": "1"}
    done = CliRunner().invoke(cli, env=environment, prog_name="sdc", complete_var="_SDC_COMPLETE")
    assert done.output.split() == ["plain,verify"]


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_installing_twice_adds_one_line(sdc, home, shell):
    startup = home / f".{shell}rc"
    startup.write_text("alias ll='ls -l'")
    for _ in range(2):
        assert sdc("completion", shell, "--install").status == 0
    before, line = startup.read_text().splitlines()
    script = home / ".config" / "sdc" / f"completion.{shell}"
    assert before == "alias ll='ls -l'"
    assert f'. "{script}"' in line
    assert script.read_text().strip() == completion.source(shell).strip()


def test_fish_needs_no_line(sdc, home):
    assert sdc("completion", "fish", "--install").status == 0
    assert (home / ".config/fish/completions/sdc.fish").exists()
