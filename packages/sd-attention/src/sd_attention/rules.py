"""Rules that recognise layers by their shape, whatever library they come from."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.nn.utils.parametrize import is_parametrized

from .channels_first import (
    ChannelLayerNorm,
    ChannelsFirst,
    FeedForward,
    GatedGELU,
    Layout,
    PointwiseConv,
    ProjectedGELU,
)
from .functions import Attention
from .operator import opaque
from .projected import DecoupledAttention, ProjectedAttention
from .rewrite import Refusal, Replacement, Rule

_PROJECTIONS = ("to_q", "to_k", "to_v")
_IMAGE_PROJECTIONS = ("to_k_ip", "to_v_ip")

#: Attributes that stand for arithmetic which plain attention does not do, when they are set.
_EXTRAS = (
    "group_norm",
    "spatial_norm",
    "norm_q",
    "norm_k",
    "norm_cross",
    "add_q_proj",
    "add_k_proj",
    "add_v_proj",
    "residual_connection",
)


def projected_attention(attend: Attention = opaque) -> Rule:
    """A rule for anything with linear ``to_q``, ``to_k``, ``to_v``, a ``to_out`` and a number of ``heads``.

    ``attend`` works in BSC: :func:`sd_attention.opaque` for export, ``on_bsc(split_einsum)`` to run in torch.
    Cross-attention with the processor of IP-Adapters becomes :class:`DecoupledAttention`, also where it is
    one already. Modules that do more than that (a norm of their own, an added residual, another scale, shared
    key heads) are refused with the reason.
    """

    def rule(module: nn.Module) -> Replacement | Refusal | None:
        if isinstance(module, DecoupledAttention):
            return None if module.attend is attend else Replacement(DecoupledAttention(module, attend))
        if not _is_attention(module):
            return None
        reason = _what_is_not_plain(module)
        if reason is not None:
            return Refusal(reason)
        kind = DecoupledAttention if _has_image_tokens(module) else ProjectedAttention
        return Replacement(kind(module, attend))

    return rule


def _is_attention(module: nn.Module) -> bool:
    return (
        all(isinstance(getattr(module, name, None), nn.Module) for name in (*_PROJECTIONS, "to_out"))
        and isinstance(getattr(module, "heads", None), int)
        and not isinstance(module, ProjectedAttention)
    )


def _has_image_tokens(module: Any) -> bool:
    """Whether its processor has the projections of IP-Adapters."""
    processor = getattr(module, "processor", None)
    return all(isinstance(getattr(processor, name, None), nn.ModuleList) for name in _IMAGE_PROJECTIONS)


def _what_is_not_plain(module: Any) -> str | None:
    """Why ``module`` is not ``to_out(attention(to_q(x), to_k(y), to_v(y)))``, or None if it is."""
    for name in _PROJECTIONS:
        if not isinstance(getattr(module, name), nn.Linear):
            return f"{name} is a {type(getattr(module, name)).__name__}, expected Linear"
    for name in _EXTRAS:
        extra = getattr(module, name, None)
        if extra is not None and extra is not False:
            return f"it has {name}"
    if getattr(module, "rescale_output_factor", 1.0) != 1.0:
        return f"it rescales its output by 1 / {module.rescale_output_factor}"
    widths = [getattr(module, name).out_features for name in _PROJECTIONS]
    if len(set(widths)) != 1 or widths[0] % module.heads:
        return f"q, k, v have {widths} channels for {module.heads} heads"
    expected = (widths[0] // module.heads) ** -0.5
    if abs(getattr(module, "scale", expected) - expected) > 1e-6 * expected:
        return f"it scales scores by {module.scale}, expected 1 / sqrt(D) = {expected}"
    return None


def linear_to_conv(layout: Layout = "BSC") -> Rule:
    """A rule for ``torch.nn.Linear``, which becomes a 1x1 convolution with the same parameters.

    ``layout="BC1S"`` changes what the layer takes and returns: the model around it must hold BC1S.
    """

    def rule(module: nn.Module) -> Replacement | Refusal | None:
        if not isinstance(module, nn.Linear):
            return None
        reason = _what_is_not_own(module, nn.Linear)
        return Refusal(reason) if reason else Replacement(PointwiseConv(module, layout))

    return rule


def layer_norm(layout: Layout = "BSC") -> Rule:
    """A rule for ``torch.nn.LayerNorm`` over one axis, which becomes one over axis 1, parameters kept.

    ``layout="BC1S"`` changes what the layer takes and returns: the model around it must hold BC1S.
    """

    def rule(module: nn.Module) -> Replacement | Refusal | None:
        if not isinstance(module, nn.LayerNorm):
            return None
        reason = _what_is_not_own(module, nn.LayerNorm)
        if reason is None and len(module.normalized_shape) != 1:
            reason = f"it norms {len(module.normalized_shape)} axes at once, expected channels alone"
        return Refusal(reason) if reason else Replacement(ChannelLayerNorm(module, layout))

    return rule


def feed_forward(layout: Layout = "BSC") -> Rule:
    """A rule for feed-forward blocks with GELU or GEGLU, which change axes once before and once after.

    It takes a ``torch.nn.Sequential`` of Linear, GELU, Linear (and Dropout anywhere), and blocks in the
    form of diffusers: ``net`` of a module called ``GEGLU`` or ``GELU`` with a linear ``proj``, then Linear
    and Dropout.
    """

    def rule(module: nn.Module) -> Replacement | Refusal | None:
        if isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward:
            return _rewritten(list(module), layout, needed=nn.GELU)
        net = getattr(module, "net", None)
        if type(module).__name__ != "FeedForward" or not isinstance(net, nn.ModuleList):
            return None
        answer = _rewritten(list(net), layout, needed=nn.Linear)
        if not isinstance(answer, Replacement) or not isinstance(answer.module, ChannelsFirst):
            return answer or Refusal("its net has a layer that is not GEGLU, GELU, Dropout or Linear")
        return Replacement(FeedForward(answer.module))

    return rule


def _rewritten(
    layers: list[nn.Module], layout: Layout, *, needed: type[nn.Module]
) -> Replacement | Refusal | None:
    """The layers in BC1S; None if one is of another kind, or none is of the kind that is needed."""
    if not any(isinstance(layer, needed) for layer in layers):
        return None
    if not any(isinstance(inner, nn.Linear) for layer in layers for inner in layer.modules()):
        return None
    rewritten = []
    for layer in layers:
        answer = _in_bc1s(layer)
        if not isinstance(answer, nn.Module):
            return answer
        rewritten.append(answer.train(layer.training))
    result = ChannelsFirst(*rewritten)
    result.layout = layout
    return Replacement(result)


def _in_bc1s(layer: Any) -> nn.Module | Refusal | None:
    """One layer of a feed-forward block in BC1S; None if it is of another kind."""
    linear = getattr(layer, "proj", layer)
    if isinstance(linear, nn.Linear):
        reason = _what_is_not_own(linear, nn.Linear)
        if reason:
            return Refusal(reason)
    if isinstance(layer, nn.Linear):
        return PointwiseConv(layer, "BC1S")
    if type(layer) in (nn.GELU, nn.Dropout, nn.Identity):
        return layer  # type: ignore[no-any-return]
    if isinstance(linear, nn.Linear) and type(layer).__name__ == "GEGLU":
        return GatedGELU(PointwiseConv(linear, "BC1S"))
    if isinstance(linear, nn.Linear) and type(layer).__name__ == "GELU":
        return ProjectedGELU(PointwiseConv(linear, "BC1S"), getattr(layer, "approximate", "none"))
    return None


def _what_is_not_own(module: nn.Module, kind: type[nn.Module]) -> str | None:
    """Why a module may compute something else than its class ``kind`` does, or None."""
    if is_parametrized(module):
        return "its parameters are computed (torch.nn.utils.parametrize)"
    if type(module).forward is not kind.forward or "forward" in vars(module):
        return f"{type(module).__name__} has a forward of its own"
    return None
