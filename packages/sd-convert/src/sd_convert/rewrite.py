"""The attention of a component's own modules, replaced by one opaque operator each."""

from __future__ import annotations

import dataclasses
from typing import Final

from .component import Component
from .errors import LoweringError

#: Components whose attention takes the chosen implementation. The others keep attention over all heads at
#: once in every variant, as in the packages that apps know.
REWRITTEN: Final = frozenset({"unet"})


def rewrite_attention(component: Component) -> Component:
    """The component with every attention module of a UNet as ``sd_attention::attention``; others as they are.

    Raises:
        LoweringError: an attention module does more than the operator stands for: its path and the reason.
    """
    from sd_attention import NothingReplacedError, projected_attention, rewrite

    if component.name not in REWRITTEN:
        return component
    try:
        report = rewrite(component.module, [projected_attention()])
    except NothingReplacedError as error:
        raise LoweringError(f"{component.name}: {error}") from error
    if report.kept:
        path, reason = report.kept[0]
        raise LoweringError(
            f"{component.name}: {path}: expected plain attention, got one that differs: {reason}"
        )
    return dataclasses.replace(component, module=report.module)
