"""Drawing a picture asks nothing of the network, starts no process, and writes nowhere but where it is told.

Each test runs in a process of its own, whose home is an empty folder and which no variable marks as CI, where
telemetry would be off by itself.
"""

import ast
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("sd_mil.engines.openvino.library", exc_type=ImportError)

#: Put before a program: writes what the process did beside itself to the file named first, as JSON lines.
WATCH = """
import json, os, sys

def watch(event, arguments):
    started = event in ("os.fork", "os.forkpty", "os.system", "os.posix_spawn", "os.exec", "subprocess.Popen")
    asked = event.startswith("socket.") and event not in ("socket.__new__", "socket.gethostname")
    wrote = event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
    made = event == "os.mkdir"
    if started or asked or wrote or made:
        os.write(log, (json.dumps([event, str(arguments[0]) if arguments else ""]) + "\\n").encode())

log = os.open(sys.argv.pop(1), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
sys.addaudithook(watch)
"""

DRAW = """
from sdc.cli import main
main()
"""

PREDICT = """
from sd_mil import MLModel
import sys
MLModel(sys.argv[1])
"""

TRANSLATE = "import sd_mil.engines.openvino.translation"

_CI = ("CI", "TF_BUILD", "JENKINS_URL", "GITHUB_ACTIONS")


def environment(home: Path) -> dict[str, str]:
    home.mkdir()
    outside = {name: value for name, value in os.environ.items() if name not in _CI}
    homes = {"HOME": str(home), "USERPROFILE": str(home), "XDG_CACHE_HOME": str(home / "cache")}
    homes["SD_MIL_CACHE"] = str(home / "cache" / "sd-mil")
    return {**{name: value for name, value in outside.items() if not name.startswith("XDG_")}, **homes}


def events(tmp_path: Path, program: str, *arguments: object) -> list[tuple[str, str]]:
    """What the program did beside itself; nothing is left of its home but the cache."""
    home, log = tmp_path / "home", tmp_path / "events"
    command = [sys.executable, "-B", "-c", WATCH + program, str(log), *map(str, arguments)]
    finished = subprocess.run(command, env=environment(home), capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    assert {path.name for path in home.iterdir()} <= {"cache"}
    assert {path.name for path in home.glob("cache/*")} <= {"sd-mil", "sdc"}
    return [tuple(json.loads(line)) for line in log.read_text().splitlines()]


def draw(bundle: Path, output: Path) -> list[str]:
    return ["generate", "a red circle", "-i", str(bundle), "-o", str(output), "--num-inference-steps", "1"]


def elsewhere(found: list[tuple[str, str]], *allowed: Path) -> list[tuple[str, str]]:
    """The events that are not about a file in an allowed folder."""
    places = tuple(str(path) for path in allowed)
    files = ("open", "os.mkdir")
    return [(event, what) for event, what in found if event not in files or not what.startswith(places)]


def test_the_watch_sees(tmp_path: Path) -> None:
    program = """
import socket, subprocess
open(sys.argv[1], "w").close()
socket.socket().close()
try: socket.create_connection(("127.0.0.1", 9), timeout=1)
except OSError: pass
subprocess.run([sys.executable, "-c", ""])
"""
    found = {event for event, _ in events(tmp_path, program, tmp_path / "file")}
    assert {"open", "socket.getaddrinfo", "socket.connect", "subprocess.Popen"} <= found


def test_a_picture(bundle: Path, tmp_path: Path) -> None:
    found = events(tmp_path, DRAW, *draw(bundle, tmp_path / "drawn.png"))
    assert (tmp_path / "drawn.png").is_file()
    assert elsewhere(found, tmp_path, Path(os.devnull)) == []


def test_a_model(bundle: Path, tmp_path: Path) -> None:
    (package, *_) = bundle.glob("*vae_decoder.mlpackage")
    assert elsewhere(events(tmp_path, PREDICT, package), tmp_path / "home", Path(os.devnull)) == []


def test_the_translator_alone(tmp_path: Path) -> None:
    assert elsewhere(events(tmp_path, TRANSLATE), Path(os.devnull)) == []


@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")
def test_a_picture_as_the_kernel_sees_it(bundle: Path, tmp_path: Path) -> None:
    trace, python = tmp_path / "trace", [sys.executable, "-B", "-m", "sdc.cli"]
    calls = "trace=connect,sendto,sendmsg,sendmmsg,clone,clone3,fork,vfork,execve"
    command = [
        "strace",
        "-f",
        "-qq",
        "-e",
        calls,
        "-o",
        str(trace),
        *python,
        *draw(bundle, tmp_path / "a.png"),
    ]
    finished = subprocess.run(
        command, env=environment(tmp_path / "home"), capture_output=True, text=True, check=False
    )
    if not trace.is_file() or "ptrace" in finished.stderr:
        pytest.skip("strace may not trace here")
    assert finished.returncode == 0, finished.stderr
    lines = [line.split(maxsplit=1)[1] for line in trace.read_text().splitlines()]
    programs = [line for line in lines if line.startswith("execve(")]
    others = [
        line for line in lines if "CLONE_THREAD" not in line and not line.startswith(("execve(", "<..."))
    ]
    assert len(programs) == 1
    assert [line for line in others if not line.startswith(("+++", "---"))] == []


def test_who_wants_telemetry_has_it_as_before(tmp_path: Path) -> None:
    program = """
import types
sys.modules["openvino_telemetry"] = mine = types.ModuleType("openvino_telemetry")
import sd_mil.engines.openvino.library
assert sys.modules["openvino_telemetry"] is mine
del sys.modules["openvino_telemetry"]
sd_mil.engines.openvino.library.import_openvino()
assert "openvino_telemetry" not in sys.modules
"""
    assert elsewhere(events(tmp_path, program), Path(os.devnull)) == []


def test_nobody_imports_openvino_before_the_one_place() -> None:
    """Modules that import it at their top import ``library`` first, or their package does."""
    import sd_mil

    folder = Path(sd_mil.__file__).parent
    operations = folder / "engines/openvino/ops"
    for path in folder.rglob("*.py"):
        module = ast.parse(path.read_text())
        functions = [node for node in ast.walk(module) if isinstance(node, ast.FunctionDef)]
        assert not any(_asks_openvino(node) for each in functions for node in ast.walk(each)), path
        if path.parent != operations or path.name == "__init__.py":
            first = next((node for node in module.body if _asks_openvino(node) or _is_first(node)), None)
            assert first is None or _is_first(first), path
    assert any(_is_first(node) for node in ast.parse((operations / "__init__.py").read_text()).body)


def _asks_openvino(node: ast.AST) -> bool:
    places = ("openvino.", "sd_mil.engines.openvino.ops.")
    return any(f"{name}.".startswith(places) for name in _imported(node))


def _is_first(node: ast.AST) -> bool:
    return "sd_mil.engines.openvino.library" in _imported(node)


def _imported(node: ast.AST) -> set[str]:
    if isinstance(node, ast.Import):
        return {alias.name for alias in node.names}
    if isinstance(node, ast.ImportFrom):
        return {node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)}
    return set()
