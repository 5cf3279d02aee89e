"""The attention of a component's own modules, replaced by one opaque operator each."""

from __future__ import annotations

import dataclasses

from sd_convert.components.component import Component
from sd_convert.errors import LoweringError


def rewrite_attention(component: Component) -> Component:
    """The component with every attention module as ``sd_attention::attention``, if its kind has that done.

    Raises:
        LoweringError: an attention module does more than the operator stands for: its path and the reason.
    """
    from sd_attention import NothingReplacedError, projected_attention, rewrite

    if not component.rewrites_attention:
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
