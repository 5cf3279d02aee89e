"""The safety checker: a CLIP vision model that compares a picture with concepts it must not show.

Legend: H W the picture in pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias, get_args

import numpy as np
import numpy.typing as npt
from sd_bundle import MissingComponentError

from sd_runtime.clip_vision import clip_input
from sd_runtime.errors import SettingsError
from sd_runtime.model import LoadedModel
from sd_runtime.models import Models
from sd_runtime.settings import SafetyAction, SafetyReport, SafetyStatus

if TYPE_CHECKING:
    from PIL.Image import Image
    from sd_bundle import Bundle

Float: TypeAlias = npt.NDArray[np.float32]
ACTIONS: Final[tuple[SafetyAction, ...]] = get_args(SafetyAction)

#: How strongly a flagged picture is blurred, as a share of its shortest side: shapes are gone, colours stay.
BLUR: Final = 1 / 8


@dataclass(frozen=True, slots=True)
class Safety:
    """What the safety checker is asked, and what becomes of a picture that it flags.

    ``action``: ``black`` it out, ``blur`` it, or only ``report`` it. ``adjustment`` is added to the score of
    each concept, -2 to 2: above 0 more is flagged, below less.

    Raises:
        SettingsError: another action, or an adjustment out of range.
    """

    action: SafetyAction = "black"
    adjustment: float = 0.0

    def __post_init__(self) -> None:
        """Refuse what makes no sense."""
        if self.action not in ACTIONS:
            raise SettingsError(f"expected a safety action of {', '.join(ACTIONS)}, got {self.action!r}")
        if not (isinstance(self.adjustment, int | float) and -2 <= self.adjustment <= 2):
            raise SettingsError(f"expected a safety adjustment from -2 to 2, got {self.adjustment!r}")


def asked_of(bundle: Bundle, safety: Safety | None, *, check: bool) -> Safety | None:
    """What the checker of ``bundle`` is asked; None not to ask it.

    Raises:
        MissingComponentError: ``safety`` asks for a checker, and there is none.
        SettingsError: it does, and ``check`` is False.
    """
    if safety is None:
        return Safety() if check else None
    if not check:
        raise SettingsError(f"expected either check_safety=False or a safety, got both: {safety}")
    if not bundle.components("safety_checker"):
        raise MissingComponentError(
            f"expected a safety checker (safety_checker) in {bundle.path}, which {safety} is to be asked of, "
            "got none: convert the checkpoint with its safety checker, or leave safety out"
        )
    return safety


def examined(image: Image, models: Models, safety: Safety | None) -> tuple[Image, SafetyReport]:
    """``image`` as it may be shown, and what the bundle's safety checker says; None does not ask it."""
    if safety is None:
        return image, SafetyReport("off")
    if not models.bundle.components("safety_checker"):
        return image, SafetyReport("absent")
    checker = models.only("safety_checker")
    report = judged(checker, image, safety)
    return (shown(image, safety.action) if report.status == "flagged" else image), report


def judged(checker: LoadedModel, image: Image, safety: Safety) -> SafetyReport:
    """Whether the checker finds one of its concepts in ``image``, which has the model's size."""
    side = checker.input("clip_input").shape[-1]
    has_scores = any(port.name == "concept_scores" for port in checker.component.outputs)
    results = checker.predict_all(
        ["has_nsfw_concepts", *(["concept_scores"] if has_scores else [])],
        clip_input=clip_input(image, side),
        images=np.asarray(image.convert("RGB"), np.float32)[None] / np.float32(255),
        adjustment=np.full(checker.input("adjustment").shape, safety.adjustment, np.float32),
    )
    scores = tuple(float(score) for score in results["concept_scores"][0]) if has_scores else None
    is_flagged = bool((results["has_nsfw_concepts"] > 0.5).any())
    status: SafetyStatus = "flagged" if is_flagged else "passed"
    return SafetyReport(status, safety.action, float(safety.adjustment), scores)


def shown(image: Image, action: SafetyAction) -> Image:
    """A flagged ``image`` after ``action``."""
    from PIL import Image as Pillow
    from PIL import ImageFilter

    if action == "black":
        return Pillow.new("RGB", image.size)
    if action == "blur":
        return image.filter(ImageFilter.GaussianBlur(min(image.size) * BLUR))
    return image
