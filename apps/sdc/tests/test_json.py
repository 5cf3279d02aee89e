"""Every command that prints a table prints it as JSON, too, and nothing beside it."""

import ast
import json
from pathlib import Path

import click
import pytest
from mil_models import doubling
from sdc import commands
from sdc.cli import _COMMANDS, cli

SOURCES = Path(commands.__file__).parent
#: Short work for each command, and what its JSON has; ``{…}`` are the paths below.
WORK = {
    "analyze": (["{encoder}", "--bits", "8"], {"candidates", "environment"}),
    "benchmark": (["{bundle}", "--runs", "1", "--num-inference-steps", "1"], {"latency", "rate", "device"}),
    "bundle": (["{bundle}", "--for", "swift", "-o", "{new}"], {"models", "seen", "seconds", "peak_memory"}),
    "cache": (["show"], {"action", "caches"}),
    "chunk": (["{encoder}", "-o", "{new}", "--chunks", "2"], {"path", "cuts", "seconds", "peak_memory"}),
    "compile": (["{package}", "-o", "{new}.mlmodelc"], {"output", "bytes", "compiler"}),
    "compress": (["{encoder}", "-o", "{new}.mlpackage", "--nbits", "6"], {"packages", "measure", "plans"}),
    "convert": (
        ["{checkpoint}", "-o", "{new}", "--components", "text_encoder", "--check-output-correctness"],
        {"components", "bytes", "verification"},
    ),
    "demo": (["--checkpoint", "{new}"], {"checkpoint"}),  # the whole of it: test_demo_does_the_whole_job
    "doctor": ([], {"healthy", "findings"}),
    "inspect": (["{bundle}"], {"model", "packages"}),
    "lint": (["{bundle}", "--target", "mac"], {"device", "findings"}),
    "repair": (["{package}", "-o", "{new}.mlpackage", "--target", "mac"], {"output", "packages"}),
    "run": (["{package}", "--random"], {"outputs", "arithmetic"}),
    "verify": (["{bundle}", "--against", "{checkpoint}"], {"passed", "rows"}),
}


def command(name):
    return cli.get_command(click.Context(cli), name)


def prints_tables(name):
    (source,) = SOURCES.glob(f"{name}*.py")
    imported = (
        alias.name
        for node in ast.walk(ast.parse(source.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and node.module == "sdc.console"
        for alias in node.names
    )
    return "table" in imported


def test_every_command_that_prints_a_table_has_the_option():
    with_option = {
        name for name in _COMMANDS if any("--json" in parameter.opts for parameter in command(name).params)
    }
    assert {name for name in _COMMANDS if prints_tables(name)} <= with_option
    assert with_option == set(WORK)


@pytest.mark.parametrize("name", WORK)
def test_the_json_is_all_that_is_printed(name, sdc, converted, checkpoint, tmp_path):
    arguments, keys = WORK[name]
    places = {
        "bundle": converted,
        "checkpoint": checkpoint,
        "encoder": next(converted.glob("*text_encoder.mlpackage")),
        "package": doubling(tmp_path / "doubling.mlpackage", x=("float32", (2, 3))),
        "new": tmp_path / "new",
    }
    done = sdc(name, *(argument.format(**places) for argument in arguments), "--json")
    assert done.status == 0, done.err
    facts = json.loads(done.out, parse_constant=lambda text: pytest.fail(f"{text} is no JSON"))
    assert keys <= set(facts)


def test_a_plan_is_json_too(sdc, checkpoint, tmp_path):
    done = sdc("convert", checkpoint, "-o", tmp_path / "new", "--dry-run", "--json")
    facts = json.loads(done.out)
    assert {part["name"] for part in facts["components"]} >= {"unet", "vae_decoder", "text_encoder"}
    (unet,) = (part for part in facts["components"] if part["name"] == "unet")
    assert unet["outputs"] == [{"name": "noise_pred", "dtype": "float32", "shape": [2, 4, 16, 16]}]
    assert not (tmp_path / "new").exists()


def test_numbers_are_those_of_the_table(sdc, converted, tmp_path):
    encoder = next(converted.glob("*text_encoder.mlpackage"))
    done = sdc("compress", encoder, "-o", tmp_path / "small.mlpackage", "--nbits", "4", "--json")
    facts = json.loads(done.out)
    (one,) = facts["packages"]
    files = (file for file in (tmp_path / "small.mlpackage").rglob("*") if file.is_file())
    assert one["bytes_after"] == sum(file.stat().st_size for file in files)
    assert facts["measure"] == "psnr"
    table = sdc("compress", encoder, "-o", tmp_path / "again.mlpackage", "--nbits", "4").out
    assert f" {one['psnr']:.1f} " in table
    assert f"{one['bits_before']:.2f} to {one['bits_after']:.2f}" in table


def test_what_is_not_measured_is_left_out(sdc, converted, tmp_path):
    encoder = next(converted.glob("*text_encoder.mlpackage"))
    done = sdc(
        "compress", encoder, "-o", tmp_path / "new.mlpackage", "--nbits", "8", "--no-measure", "--json"
    )
    facts = json.loads(done.out)
    assert facts["measure"] is None
    assert {"psnr", "snr"}.isdisjoint(facts["packages"][0])
