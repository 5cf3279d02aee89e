"""What several networks add together, by functions in their place, against sums by hand."""

from __future__ import annotations

import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sd_controlnet import BaseModelError, Control, ControlNetError, HintError, ImagePrompt, Steering
from sd_runtime import (
    BundleComponent,
    ConditioningFacts,
    DenoiserFacts,
    Evaluation,
    FunctionModel,
    ImageSize,
    LatentSize,
    ModelFacts,
    PictureSize,
    Pipeline,
    PortSpec,
    Provenance,
    UserImageError,
    VaeFacts,
    new_bundle,
    open_bundle,
)

FACTS = ModelFacts(
    identifier="org/toy",
    family="sd1",
    task="text-to-image",
    denoiser=DenoiserFacts("unet", None),
    prediction_type="epsilon",
    scheduler="scheduler/scheduler_config.json",
    sizes=(PictureSize(ImageSize(32, 48), LatentSize(4, 4, 6)),),
    vae=VaeFacts(1.0, 0.0, "moments"),
    text_encoders=(),
    conditioning=ConditioningFacts("none", zero_empty_negative=False, guidance_embedding=False),
)
SHAPES = {"additional_residual_0": (8, 4, 6), "additional_residual_1": (16, 2, 3)}
IMAGES = {"ip_hidden_states_0": (8, 1, 4), "ip_hidden_states_1": (8, 1, 2), "ip_adapter_scale": (2,)}
ADAPTER = {"adapter_res_samples_00": (8, 4, 6)}
HINT = Image.new("RGB", (10, 10), (255, 0, 0))


def ports(shapes: dict[str, tuple[int, ...]], batch: int) -> list[PortSpec]:
    return [PortSpec(name, (batch, *shape), "float16") for name, shape in shapes.items()]


def entry(name: str, role: str, inputs: list[PortSpec], outputs: list[PortSpec]) -> BundleComponent:
    return BundleComponent.of_package(
        f"{name.replace('/', '_')}.mlpackage",
        name=name,
        role=role,  # type: ignore[arg-type]
        size=FACTS.image,
        inputs=inputs,
        outputs=outputs,
        attention_implementation=None,
        compute_unit="CPU_ONLY",
        deployment_target="macOS13",
    )


def controlnet(name: str, shapes: dict[str, tuple[int, ...]] = SHAPES, batch: int = 1) -> BundleComponent:
    inputs = ports({"sample": (4, 4, 6), "controlnet_cond": (3, 32, 48)}, batch)
    return entry(
        name, "controlnet", [*inputs, PortSpec("timestep", (batch,), "float16")], ports(shapes, batch)
    )


def controlled(name: str, calls: list[str]) -> Callable[..., Any]:
    """Residuals of 1 in the first and 10 in the second, times the mean of the row and of the hint's red."""

    def call(sample: Any, controlnet_cond: Any, timestep: Any) -> dict[str, Any]:
        calls.append(name)
        size = sample.mean((1, 2, 3)) * controlnet_cond[:, 0].mean((1, 2))
        shapes = {key: (1, 1) if name == "pooled" else shape[1:] for key, shape in SHAPES.items()}
        return {
            key: size[:, None, None, None] * 10**index * np.ones((len(sample), SHAPES[key][0], *shapes[key]))
            for index, key in enumerate(SHAPES)
        }

    return call


class Toy:
    """A pipeline of functions, and which of them ran."""

    def __init__(self, path: Path, *, unet: dict[str, tuple[int, ...]], reduce_memory: bool = False) -> None:
        self.calls: list[str] = []
        self.opened: list[str] = []
        pooled = {name: (shape[0], 1, 1) for name, shape in SHAPES.items()}
        entries = [
            entry(
                "unet",
                "denoiser",
                ports({"sample": (4, 4, 6), **unet}, 1),
                ports({"noise_pred": (4, 4, 6)}, 1),
            ),
            controlnet("org/canny"),
            controlnet("depth", batch=2),
            controlnet("pooled", pooled),
            controlnet("other", {**SHAPES, "additional_residual_1": (24, 2, 3)}),
            entry(
                "image_encoder",
                "vision_encoder",
                ports({"pixel_values": (3, 8, 8)}, 1),
                ports({"image_embeds": (5,), "hidden_states": (3, 6)}, 1),
            ),
            entry(
                "org/plain",
                "image_projection",
                ports({"image_embeds": (5,)}, 1),
                ports({"ip_hidden_states_0": (8, 1, 4)}, 1),
            ),
            entry(
                "plus",
                "image_projection",
                ports({"hidden_states": (3, 6)}, 1),
                ports({"ip_hidden_states_1": (8, 1, 2)}, 1),
            ),
            entry("sketch", "t2i_adapter", ports({"input": (1, 32, 48)}, 1), ports(ADAPTER, 1)),
        ]
        with new_bundle(path, FACTS, provenance=Provenance.now("org/toy", tools={})) as draft:
            for each in entries:
                place = draft.add_component(each)
                place.mkdir()
                (place / "Manifest.json").write_text("{}")
            draft.add_file("scheduler/scheduler_config.json", b"{}")
        self.pipeline = Pipeline(open_bundle(path), self.open, reduce_memory=reduce_memory)

    def open(self, component: BundleComponent) -> FunctionModel:
        self.opened.append(component.name)
        if component.role in ("vision_encoder", "image_projection"):
            return FunctionModel(self.seeing(component))
        if component.name != "sketch":
            return FunctionModel(controlled(component.name, self.calls))

        def sketch(input: Any) -> dict[str, Any]:  # noqa: A002
            self.calls.append("sketch")
            return {"adapter_res_samples_00": np.full((1, 8, 4, 6), input.mean())}

        return FunctionModel(sketch)

    def seeing(self, component: BundleComponent) -> Callable[..., Any]:
        """What is given, plus one in an encoder, times two in a projection, everywhere."""

        def call(**given: Any) -> dict[str, Any]:
            self.calls.append(component.name)
            (values,) = given.values()
            number = (
                float(values.mean()) + 1 if component.role == "vision_encoder" else 2 * float(values.mean())
            )
            return {port.name: np.full(port.shape, number) for port in component.outputs}

        return call

    def asked(self, *controls: Control, index: int = 0, total: int = 4) -> dict[str, Any]:
        """What two rows, of means 2 (the negative one) and 3, are given."""
        sample = np.ones((2, 9, 4, 6), np.float32) * np.array([2, 3], np.float32).reshape(-1, 1, 1, 1)
        sample[:, 4:] = 99  # what only a UNet for inpainting sees
        inputs = {"sample": sample, "timestep": np.array([7, 7], np.float32)}
        return dict(Steering(self.pipeline, controls)(Evaluation(inputs, (True, False), index, total)))


@pytest.fixture
def toy(tmp_path: Path) -> Toy:
    return Toy(tmp_path / "toy", unet={**SHAPES, **ADAPTER})


def rows(values: Any) -> list[float]:
    """The one number of each row."""
    assert all(np.ptp(row) < 1e-4 for row in values)
    return [round(float(row.mean()), 3) for row in values]


def test_residuals_are_scaled_and_summed_once(toy: Toy) -> None:
    added = toy.asked(Control("canny", HINT, 0.5), Control("depth", HINT, 2.0))
    assert {name: values.shape for name, values in added.items()} == {
        name: (2, *shape) for name, shape in SHAPES.items()
    }
    assert rows(added["additional_residual_0"]) == [2.5 * 2, 2.5 * 3]
    assert rows(added["additional_residual_1"]) == [25 * 2, 25 * 3]
    assert toy.calls == ["org/canny", "org/canny", "depth"]  # a row at a time, and both at once


def test_only_while_they_steer(toy: Toy) -> None:
    canny, depth = Control("canny", HINT, start=0.5), Control("depth", HINT, end=0.5)
    sums = [toy.asked(canny, depth, index=index) for index in range(4)]
    assert [rows(added["additional_residual_0"]) for added in sums] == [[2, 3]] * 4
    assert toy.calls == ["depth"] * 2 + ["org/canny"] * 4
    assert toy.asked(Control("canny", HINT, scale=0)) == {}


def test_guess_mode_leaves_the_negative_row_and_the_finest_details(toy: Toy) -> None:
    added = toy.asked(Control("canny", HINT, 0.5, guess_mode=True))
    assert rows(added["additional_residual_0"]) == [0, 0.15]
    assert rows(added["additional_residual_1"]) == [0, 15]


def test_means_steer_the_prompt_everywhere(toy: Toy) -> None:
    added = toy.asked(Control("pooled", HINT, 0.5))
    assert added["additional_residual_0"].shape == (2, 8, 4, 6)
    assert rows(added["additional_residual_1"]) == [0, 15]


def test_masks_are_averaged_over_each_cell(toy: Toy) -> None:
    mask = Image.new("L", (48, 32))
    mask.paste(255, (0, 0, 20, 32))  # two and a half cells of the first residual
    added = toy.asked(Control("canny", HINT, mask=mask))
    np.testing.assert_allclose(added["additional_residual_0"][1, 5, 2], [3, 3, 1.5, 0, 0, 0])
    np.testing.assert_allclose(added["additional_residual_1"][0, 0, 0], [20, 5, 0])


def test_an_adapter_runs_once(toy: Toy) -> None:
    steering = Steering(toy.pipeline, [Control("sketch", Image.new("L", (4, 4), 255), 0.25)])
    inputs = {"sample": np.zeros((2, 4, 4, 6), np.float32)}
    for index in range(3):
        added = steering(Evaluation(inputs, (True, False), index, 3))
        assert rows(added["adapter_res_samples_00"]) == [0.25, 0.25]
    assert toy.calls == ["sketch"]


def test_what_one_thread_is_given_all_are(tmp_path: Path) -> None:
    """Sixteen pictures at once, with one Steering: each has the sum for its own rows and step."""
    toy = Toy(tmp_path / "toy", unet={**SHAPES, **ADAPTER, **IMAGES}, reduce_memory=True)
    sketch = Control("sketch", Image.new("L", (4, 4), 255), 0.25)
    controls = [Control("canny", HINT, 0.5), Control("depth", HINT, 2.0, end=0.5), sketch]

    def asked(steering: Steering, job: int) -> dict[str, Any]:
        sample = np.full((2, 4, 4, 6), 1 + job // 4, np.float32)
        inputs = {"sample": sample, "timestep": np.zeros(2, np.float32)}
        given = steering(Evaluation(inputs, (True, False), job % 4, 4))
        return {name: np.asarray(values).tolist() for name, values in given.items()}

    images = [ImagePrompt(BLACK, 0.5, start=0.25)]
    alone, jobs = Steering(toy.pipeline, controls, images), range(64)
    expected = [asked(alone, job) for job in jobs]
    assert len(set(map(repr, expected))) > 24
    shared, barrier, before = Steering(toy.pipeline, controls, images), Barrier(16), sys.getswitchinterval()
    sys.setswitchinterval(1e-5)  # threads change places much more often than they do otherwise
    try:
        with ThreadPoolExecutor(16, initializer=barrier.wait) as pool:
            assert list(pool.map(lambda job: asked(shared, job), jobs)) == expected
    finally:
        sys.setswitchinterval(before)


BLACK = Image.new("RGB", (9, 7))
#: The mean of what CLIP is given of a black picture.
DARK = -float(np.mean(np.array([0.48145466, 0.4578275, 0.40821073]) / [0.26862954, 0.26130258, 0.27577711]))


def test_images_are_tokens_and_scales_for_each_row(tmp_path: Path) -> None:
    toy = Toy(tmp_path / "toy", unet={**SHAPES, **ADAPTER, **IMAGES}, reduce_memory=True)
    images = [ImagePrompt(BLACK, 0.5), ImagePrompt(BLACK, 2.0, start=0.5)]
    steering = Steering(toy.pipeline, [Control("canny", HINT)], images)
    assert toy.pipeline.models.loaded == ()  # the UNet has the memory for itself
    assert [each.component for each in steering.controls] == ["org/canny", "org/plain", "plus"]
    inputs = {"sample": np.ones((2, 4, 4, 6), np.float32), "timestep": np.ones(2, np.float32)}
    first, last = (dict(steering(Evaluation(inputs, (True, False), index, 2))) for index in (0, 1))
    assert first["ip_adapter_scale"].tolist() == [[0.5, 0]] * 2
    assert last["ip_adapter_scale"].tolist() == [[0.5, 2.0]] * 2
    assert "ip_hidden_states_1" not in first
    assert last["ip_hidden_states_0"].shape == (2, 8, 1, 4)
    # no image is an embedding of zeros, or what an encoder sees of zeros
    assert rows(last["ip_hidden_states_0"]) == [0, round(2 * (DARK + 1), 3)]
    assert rows(last["ip_hidden_states_1"]) == [2, round(2 * (DARK + 1), 3)]
    assert rows(first["additional_residual_0"]) == [1, 1]


def test_images_that_are_refused(toy: Toy, tmp_path: Path) -> None:
    with pytest.raises(
        BaseModelError, match=r"plain to give ip_hidden_states_0 of shape none, .* --ip-adapter"
    ):
        Steering(toy.pipeline, images=[ImagePrompt(BLACK)])
    able = Toy(tmp_path / "able", unet={**SHAPES, **IMAGES}).pipeline
    with pytest.raises(ControlNetError, match=r"\(org/plain, plus\), got 3"):
        Steering(able, images=[ImagePrompt(BLACK)] * 3)
    with pytest.raises(ControlNetError, match="one image for each IP-Adapter, got several for plus, plus"):
        Steering(able, images=[ImagePrompt(BLACK, adapter="plus")] * 2)
    with pytest.raises(ControlNetError, match=r"\(org/plain, plus\), got 'canny'"):
        Steering(able, images=[ImagePrompt(BLACK, adapter="canny")])
    with pytest.raises(ControlNetError, match="the start of an image to be before its end"):
        ImagePrompt(BLACK, start=1.0)
    with pytest.raises(UserImageError, match=r"absent\.png"):
        Steering(able, images=[ImagePrompt(tmp_path / "absent.png")])


def test_with_little_memory_only_what_a_step_needs_stays(tmp_path: Path) -> None:
    toy = Toy(tmp_path / "toy", unet={**SHAPES, **ADAPTER}, reduce_memory=True)
    models = toy.pipeline.models
    steering = Steering(toy.pipeline, [Control("canny", HINT, end=0.5), Control("depth", HINT, start=0.5)])
    inputs = {"sample": np.ones((2, 4, 4, 6), np.float32), "timestep": np.ones(2, np.float32)}
    kept = []
    models.only("denoiser")
    for index in range(4):
        steering(Evaluation(inputs, (True, False), index, 4))
        kept.append(models.loaded)
    assert kept == [("unet", "org/canny"), ("unet",), ("unet", "depth"), ("unet",)]


def test_what_a_picture_says_of_them(toy: Toy) -> None:
    blue = Image.new("RGB", (9, 9), (0, 0, 255))
    steering = Steering(
        toy.pipeline, [Control("canny", HINT, 0.5, 0.1, 0.9, mask=HINT), Control("depth", blue)]
    )
    canny, depth = steering.controls
    assert (canny.component, canny.scale, canny.start, canny.end) == ("org/canny", 0.5, 0.1, 0.9)
    assert canny.hint_sha256 != depth.hint_sha256
    assert canny.mask_sha256 is not None
    assert depth.mask_sha256 is None


@pytest.mark.parametrize(
    ("numbers", "said"),
    [
        ({"scale": -0.1}, "a scale from 0 to 10, got -0.1"),
        ({"scale": float("nan")}, "a scale from 0 to 10, got nan"),
        ({"scale": 11}, "a scale from 0 to 10, got 11"),
        ({"start": 1.5}, "a start from 0 to 1, got 1.5"),
        ({"end": -1}, "a end from 0 to 1, got -1"),
        ({"start": 0.5, "end": 0.5}, "the start of canny to be before its end, got 0.5 and 0.5"),
    ],
)
def test_numbers_out_of_range(numbers: dict[str, float], said: str) -> None:
    with pytest.raises(ControlNetError, match=said):
        Control("canny", HINT, **numbers)  # type: ignore[arg-type]


def test_what_does_not_fit_is_refused(toy: Toy, tmp_path: Path) -> None:
    with pytest.raises(
        BaseModelError, match=r"additional_residual_1 of shape \[16, 2, 3\].* got \[24, 2, 3\]"
    ):
        Steering(toy.pipeline, [Control("other", HINT)])
    with pytest.raises(ControlNetError, match=r"\(org/canny, depth, pooled, other, sketch\), got 'pose'"):
        Steering(toy.pipeline, [Control("pose", HINT)])
    with pytest.raises(ControlNetError, match="at least one"):
        Steering(toy.pipeline, [])
    plain = Toy(tmp_path / "plain", unet={})
    with pytest.raises(ControlNetError, match="sdc convert org/toy --unet-support-controlnet"):
        Steering(plain.pipeline, [Control("canny", HINT)])
    with pytest.raises(ControlNetError, match="sdc convert org/toy --unet-support-t2i-adapter"):
        Steering(plain.pipeline, [Control("sketch", HINT)])


def test_hints_that_cannot_be_used(toy: Toy, tmp_path: Path) -> None:
    moving, broken, numbers = tmp_path / "moving.gif", tmp_path / "broken.png", tmp_path / "numbers.npy"
    HINT.save(moving, save_all=True, append_images=[Image.new("RGB", (10, 10))])
    broken.write_bytes(b"no picture")
    np.save(numbers, np.full((3, 8, 8), 0.5, np.float32))
    with pytest.raises(UserImageError, match=r"moving\.gif: expected a whole still picture .*animation"):
        Steering(toy.pipeline, [Control("canny", moving)])
    with pytest.raises(UserImageError, match=r"broken\.png: expected a whole still picture"):
        Steering(toy.pipeline, [Control("canny", broken)])
    with pytest.raises(HintError, match=r"shape \[1, 3, 32, 48\], got float32\[3, 8, 8\]"):
        Steering(toy.pipeline, [Control("canny", numbers)])
    with pytest.raises(HintError, match=r"numbers in \[0, 1\], or -1 .* got 0 to 200"):
        Steering(toy.pipeline, [Control("canny", np.linspace(0, 200, 3 * 32 * 48).reshape(3, 32, 48))])
    numbers.write_bytes(b"\x93NUMPY\x01\x00")
    with pytest.raises(HintError, match=r"numbers\.npy: expected an array"):
        Steering(toy.pipeline, [Control("canny", numbers)])


def test_depth_of_16_bits_keeps_its_range(toy: Toy) -> None:
    deep = Image.fromarray(np.full((8, 8), 32768, np.uint16))
    grey = Image.new("L", (8, 8), 128)
    first, second = (Steering(toy.pipeline, [Control("canny", hint)]).controls for hint in (deep, grey))
    assert first == second
