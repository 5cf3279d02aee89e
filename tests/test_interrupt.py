"""Ctrl-C in the middle of a conversion, as a terminal sends it."""

import os
import signal
import subprocess
import sys
import time

import pytest

#: A size of which no programs are shipped: torch is imported, and the conversion takes seconds.
_LOWERED = ("--size", "192x192")


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_ctrl_c_leaves_what_was_there(checkpoint, tmp_path, tmp_path_factory):
    output = tmp_path / "bundle"
    command = [sys.executable, "-m", "sdc.cli", "convert", str(checkpoint), "-o", str(output), *_LOWERED]
    # A home without an earlier conversion, from which this one would be done before the signal comes.
    home = tmp_path_factory.mktemp("home")
    environment = {**os.environ, "HOME": str(home), "XDG_CACHE_HOME": str(home / "cache")}
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )
    deadline = time.monotonic() + 60
    while not list(tmp_path.iterdir()) and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.01)
    assert not output.exists()
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "interrupted" in errors
    assert "Traceback" not in errors
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
@pytest.mark.parametrize(
    ("module", "sent", "status"),
    [
        ("click", "SIGINT", 130),
        ("rich.console", "SIGINT", 130),
        ("rich.console", "SIGTERM", 143),
        ("torch.nn", "SIGINT", 130),
        ("diffusers", "SIGINT", 130),
    ],
)
def test_a_signal_while_a_library_is_imported(checkpoint, tmp_path, module, sent, status):
    """The import is broken off, and what the next one makes of the half module is not an error of ours."""
    program = f"""
import importlib.abc, os, signal, sys

class Interrupting(importlib.abc.MetaPathFinder):
    def find_spec(self, name, *_):
        if name == {module!r}:
            sys.meta_path.remove(self)
            try:
                os.kill(os.getpid(), signal.{sent})
                signal.pause()
            except KeyboardInterrupt:
                raise AttributeError("half a module") from None

sys.meta_path.insert(0, Interrupting())
sys.argv = ["sdc", *sys.argv[1:]]
from sdc.start import main
main()
"""
    output = tmp_path / "bundle"
    command = [sys.executable, "-c", program, "convert", str(checkpoint), "-o", str(output), *_LOWERED]
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache")}
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment)
    assert done.returncode == status, done.stderr
    assert done.stderr.strip() == "sdc: interrupted; what was there before is as it was"
    assert not output.exists()
