"""What the safety checker is asked, and what becomes of its answer."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFilter
from sd_bundle import PortSpec
from sd_runtime import (
    BundleComponent,
    FunctionModel,
    LoadedModel,
    MissingComponentError,
    Pipeline,
    Safety,
    SettingsError,
    read_settings,
)
from sd_runtime.safety import examined, judged

SCORES = np.float32([-0.2, -0.1, -0.4])


def checker(*, scores: bool = True) -> LoadedModel:
    """Flags what has a score above 0; its scores are fixed, but for the adjustment."""
    outputs = [PortSpec("has_nsfw_concepts", (1, 1, 1, 1), "float32")]
    outputs += [PortSpec("concept_scores", (1, 3), "float32")] if scores else []
    component = BundleComponent.of_package(
        "checker.mlpackage",
        name="safety_checker",
        role="safety_checker",
        size=None,
        inputs=[
            PortSpec("clip_input", (1, 3, 8, 8), "float32"),
            PortSpec("images", (1, 64, 64, 3), "float32"),
            PortSpec("adjustment", (1,), "float32"),
        ],
        outputs=outputs,
        attention_implementation=None,
        compute_unit="CPU_ONLY",
        deployment_target="macOS13",
    )

    def call(clip_input: Any, images: Any, adjustment: Any) -> dict[str, Any]:
        found = SCORES + adjustment
        flags = np.float32((found > 0).any()).reshape(1, 1, 1, 1)
        return {"has_nsfw_concepts": flags, "concept_scores": found[None]}

    return LoadedModel(component, FunctionModel(call))


@dataclasses.dataclass
class OneModel:
    """The networks of a bundle that has a safety checker, or none."""

    model: LoadedModel | None

    @property
    def bundle(self) -> OneModel:
        return self

    def components(self, _: str) -> list[LoadedModel]:
        return [self.model] if self.model else []

    def only(self, _: str) -> LoadedModel:
        assert self.model is not None
        return self.model


PICTURE = Image.fromarray(np.random.default_rng(1).integers(0, 256, (64, 64, 3), np.uint8))


def test_scores_come_with_the_verdict_and_move_with_the_adjustment() -> None:
    passed, flagged = (judged(checker(), PICTURE, Safety(adjustment=by)) for by in (0.0, 0.15))
    assert passed.status == "passed"
    np.testing.assert_allclose(passed.scores or (), SCORES)
    assert flagged.status == "flagged"
    np.testing.assert_allclose(flagged.scores or (), SCORES + np.float32(0.15))
    assert judged(checker(scores=False), PICTURE, Safety(adjustment=0.15)).scores is None


def test_a_flagged_picture_is_black_blurred_or_shown() -> None:
    models: Any = OneModel(checker())
    black, blurred, as_it_is = (
        examined(PICTURE, models, Safety(action, 0.15))[0] for action in ("black", "blur", "report")
    )
    assert not np.asarray(black).any()
    np.testing.assert_array_equal(
        np.asarray(blurred), np.asarray(PICTURE.filter(ImageFilter.GaussianBlur(8)))
    )
    assert as_it_is is PICTURE
    assert examined(PICTURE, models, Safety("blur"))[0] is PICTURE


def test_no_checker_and_no_question_are_told_apart() -> None:
    bare: Any = OneModel(None)
    assert examined(PICTURE, bare, Safety())[1].status == "absent"
    assert examined(PICTURE, bare, None)[1].status == "off"


def test_the_verdict_is_in_the_picture(toy_pipeline: Callable[..., Pipeline], tmp_path: Path) -> None:
    pipeline = toy_pipeline()
    (plain,) = pipeline.generate("a", num_inference_steps=1)
    assert (plain.safety.status, plain.flagged, plain.settings.safety) == ("absent", False, None)

    latent = np.zeros((1, 4, 8, 8), np.float32)
    pipeline.models = OneModel(checker())  # type: ignore[assignment]
    pipeline.decode = lambda _: PICTURE  # type: ignore[method-assign]
    drawn = pipeline.finish(latent, plain.settings, safety=Safety("blur", 0.15))
    assert drawn.flagged
    drawn.save(tmp_path / "a.png")
    assert read_settings(tmp_path / "a.png").safety == drawn.safety


def test_a_checker_that_is_asked_has_to_be_there(toy_pipeline: Callable[..., Pipeline]) -> None:
    pipeline = toy_pipeline()
    steps: list[Any] = []
    pipeline.suited = steps.append  # type: ignore[assignment, method-assign]
    with pytest.raises(MissingComponentError, match="safety_checker"):
        pipeline.generate("a", safety=Safety("blur"))
    with pytest.raises(SettingsError, match="either check_safety=False or a safety"):
        pipeline.generate("a", safety=Safety(), check_safety=False)
    assert not steps, "said before anything is drawn"


@pytest.mark.parametrize("wrong", [{"action": "hide"}, {"adjustment": 3.0}, {"adjustment": float("nan")}])
def test_nonsense_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match="expected a safety a"):
        Safety(**wrong)
