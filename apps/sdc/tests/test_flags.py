"""docs/flags.md: every flag of Apple's is in it, and what stands beside it is a flag of ours."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest
from sd_schedulers import resolve
from sdc.apple_options import compute_unit_of
from sdc.cli import cli

TABLE = Path(__file__).parents[3] / "docs/flags.md"
#: Source: ml-stable-diffusion, python_coreml_stable_diffusion/pipeline.py, torch2coreml.py
#: (``add_argument``), swift/StableDiffusionCLI/main.swift (``@Option``, ``@Flag``, in kebab case).
APPLES = {
    "pipeline": """--prompt --negative-prompt -i -o --seed -s --model-version --compute-unit --scheduler
        --num-inference-steps --guidance-scale --controlnet --controlnet-inputs --unet-batch-one
        --model-sources""",
    "StableDiffusionSample": """--negative-prompt --resource-path --image --strength --image-count
        --step-count --save-every --output-path --seed --guidance-scale --compute-units --scheduler --rng
        --controlnet --controlnet-inputs --disable-safety --reduce-memory
        --use-multilingual-text-encoder --script""",
    "torch2coreml": """--convert-text-encoder --convert-vae-decoder --convert-vae-encoder --convert-unet
        --convert-safety-checker --convert-controlnet --model-version --refiner-version --custom-vae-version
        --compute-unit --latent-h --latent-w --text-token-sequence-length --text-encoder-hidden-size
        --attention-implementation -o --check-output-correctness --chunk-unet --quantize-nbits
        --unet-support-controlnet --unet-batch-one --min-deployment-target --bundle-resources-for-swift-cli
        --text-encoder-vocabulary-url --text-encoder-merges-url --xl-version""",
}
FLAG = re.compile(r"`(--?[a-z][a-z0-9-]*)`")

pytestmark = pytest.mark.skipif(not TABLE.is_file(), reason="the documentation is not installed")


def rows(program: str) -> list[list[str]]:
    (section,) = [part for part in TABLE.read_text().split("\n## ") if program in part.partition("\n")[0]]
    return [line.strip("|").split("|") for line in section.splitlines() if line.startswith("| `")]


def options_of(command: str) -> set[str]:
    found = cli.get_command(click.Context(cli), command)
    assert found is not None
    return {name for option in found.params for name in (*option.opts, *option.secondary_opts)}


@pytest.mark.parametrize("program", APPLES)
def test_every_flag_of_apples_is_there(program: str) -> None:
    named = [flag for row in rows(program) for flag in FLAG.findall(row[0])]
    assert sorted(named) == sorted(APPLES[program].split())


@pytest.mark.parametrize(
    ("program", "command"),
    [("pipeline", "generate"), ("StableDiffusionSample", "generate"), ("torch2coreml", "convert")],
)
def test_what_stands_beside_it_is_ours(program: str, command: str) -> None:
    known = options_of(command)
    for theirs, ours, *_ in rows(program):
        flags = FLAG.findall(ours)
        assert set(flags) <= known, theirs
        assert flags or ours.strip() == "-", theirs
        if command == "generate":  # where there is one at all, Apple's own spelling is accepted
            assert not flags or set(FLAG.findall(theirs)) <= known, theirs


def test_names_of_values() -> None:
    python = ("DDIM", "DPMSolverMultistep", "EulerAncestralDiscrete", "EulerDiscrete", "LMSDiscrete", "PNDM")
    ours = [
        "ddim",
        "dpmpp_2m",
        "euler_ancestral",
        "euler",
        "lms",
        "pndm",
        "pndm",
        "dpmpp_2m",
        "euler_ancestral",
    ]
    assert [resolve(name) for name in (*python, "pndm", "dpmpp", "ead")] == ours
    context, option = click.Context(cli), click.Option(["--compute-unit"])
    swift = ("all", "cpuOnly", "cpuAndGPU", "cpuAndNeuralEngine")
    units = ["ALL", "CPU_ONLY", "CPU_AND_GPU", "CPU_AND_NE"]
    assert [compute_unit_of(context, option, name) for name in swift] == units
    assert [compute_unit_of(context, option, name) for name in units] == units
