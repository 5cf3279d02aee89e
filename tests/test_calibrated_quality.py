"""Calibrated compression of the demo UNet, on captions and seeds that calibration did not see."""

from dataclasses import dataclass

import pytest

pytest.importorskip("torch")
pytest.importorskip("openvino")

SEEN = ["a red circle on a blue background", "a green star on a white background"]
OTHERS = ["a yellow square on a purple background", "a black triangle on an orange background"]


class Remembering:
    """The engine, but ``program`` is compiled once, and run once on the same inputs."""

    def __init__(self, program, engine):
        self.program, self.engine = program, engine
        self.compiled, self.results = engine.compile(program), {}

    def compile(self, program):
        return self if program is self.program else self.engine.compile(program)

    def run(self, inputs):
        if id(inputs) not in self.results:
            self.results[id(inputs)] = self.compiled.run(inputs)
        return self.results[id(inputs)]


@dataclass(frozen=True)
class Subject:
    program: object
    engine: object
    calibration: list
    measuring: list
    hessians: dict
    gains: dict

    def decibels(self, recipe, assign, every=1):
        from sd_compress import compress, signal_to_noise

        compressed = compress(self.program, recipe, assign=assign).program
        return signal_to_noise(self.program, compressed, self.measuring[::every], self.engine)


@pytest.fixture(scope="module")
def unet(bundle):
    from sd_bundle import open_bundle
    from sd_compress import Collecting, collect_hessians, measure_gains
    from sd_mil import read_package
    from sd_mil.engines import OpenVINO
    from sdc.recording import Recording

    opened = open_bundle(bundle)
    component = opened.component("unet")

    def runs(prompts, seed):
        recording = Recording(("unet",), 8, 6, seed, OpenVINO())
        return recording.record(opened, prompts, lambda _: None)[component.package]

    program, calibration = read_package(opened.package(component)).program, runs(SEEN, 100)
    hessians = collect_hessians(program, calibration, Collecting(memory=40 * 10**6))
    gains = measure_gains(program, calibration[3:5])
    return Subject(program, Remembering(program, OpenVINO()), calibration, runs(OTHERS, 900), hessians, gains)


@pytest.fixture(scope="module")
def plain(unet):
    from sd_compress import Palettize, optimal_palette, uniform_recipe

    return unet.decibels(uniform_recipe(unet.program, Palettize(2)), optimal_palette)


def test_calibrated_palettes_are_4_db_better(unet, plain):
    from sd_compress import Calibrated, Palettize, optimal_palette, uniform_recipe

    recipe = uniform_recipe(unet.program, Palettize(2))
    assert unet.decibels(recipe, Calibrated(unet.hessians, optimal_palette)) > plain + 4


def test_a_plan_is_better_than_two_bits_for_all(unet, plain):
    from sd_compress import (
        Palettize,
        Recipe,
        Selection,
        optimal_palette,
        plan_for_bytes,
        sensitivities,
        weights_of,
        widths_for,
    )

    chosen = [one for one in weights_of(unet.program) if Selection().has(one)]
    known = sensitivities(
        chosen,
        unet.hessians,
        optimal_palette,
        gains=unet.gains,
        schemes=widths_for(unet.program),
        compensated=False,
    )
    every = [one for weight in known for one in weight.candidates if one.scheme == Palettize(2)]
    plan = plan_for_bytes(known, sum(one.stored_bytes for one in every))
    assert unet.decibels(Recipe(plan.schemes), optimal_palette) > plain + 4


def test_what_is_expected_of_weights_is_in_the_order_of_what_is_measured(unet):
    import numpy as np
    from sd_compress import Palettize, Recipe, Selection, optimal_palette, sensitivities, weights_of

    chosen = [one for one in weights_of(unet.program) if Selection().has(one)][::9]
    scheme = Palettize(2)
    known = sensitivities(
        chosen, unet.hessians, optimal_palette, gains=unet.gains, schemes=[scheme], compensated=False
    )
    expected = [-weight.candidates[1].noise for weight in known]
    measured = [unet.decibels(Recipe({weight.weight: scheme}), optimal_palette, 4) for weight in known]
    ranks = [np.argsort(np.argsort(values)).astype(float) for values in (expected, measured)]
    assert np.corrcoef(ranks)[0, 1] > 0.6  # 0.95 of all 83 weights
