"""Which of a denoiser's forms a picture needs: one that takes what steers it and all of the prompt."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from sd_bundle import Form, ModelFacts, Role

from sd_runtime.conditioning.guidance import PERP_NEG, is_guided
from sd_runtime.errors import SettingsError
from sd_runtime.settings import ImageSettings


def form_for(
    forms: Sequence[Form],
    *,
    takes: Collection[Role] | None,
    rows: int,
    fits: Callable[[int], bool],
) -> Form:
    """The form that a picture needs.

    ``takes``: the roles of what steers; None where that is not known, and everything may come. ``rows``: how
    many predictions a step takes. ``fits``: whether the prompts fit into so many tokens.

    It takes what steers, and as little else as can be; the prompts fit, into as few tokens as can be (else
    they are cut, and it has the most); and a step takes as little work as can be, in as few calls.

    Raises:
        SettingsError: none takes what steers; those that there are.
    """
    needed = set(takes or ())
    able = [form for form in forms if needed <= set(form.takes)]
    if not able:
        have = "; ".join(map(str, forms))
        raise SettingsError(
            f"expected a UNet that takes what {' and '.join(sorted(needed))} gives, got only: {have}"
        )
    counts = sorted({form.tokens for form in able if form.tokens is not None})
    tokens = next((count for count in counts[:-1] if fits(count)), counts[-1] if counts else None)

    def cost(form: Form) -> tuple[bool, int, int, int]:
        more = len(set(form.takes) - needed)
        calls = -(-rows // (form.batch or rows))
        return form.tokens != tokens, -more if takes is None else more, calls * (form.batch or rows), calls

    return min(able, key=cost)  # of equals, the first


def rows_of(settings: ImageSettings, model: ModelFacts) -> int:
    """How many predictions a step takes, where it is guided."""
    if not is_guided(settings, model):
        return 1
    return 3 if settings.image_guidance_scale is not None or settings.guidance_method == PERP_NEG else 2
