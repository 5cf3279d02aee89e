"""Linear projections around an attention function, under the names that their parameters had."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from torch import Tensor, nn

from .functions import Attention


class ProjectedAttention(nn.Module):
    """Linear projections around an attention function; parameters keep the names they had.

    Shapes: hidden_states ``(B, Q, C)``; encoder_hidden_states ``(B, S, E)``, or None for self-attention;
    attention_mask ``(B|1, N|1, Q|1, S)``; returns ``(B, Q, C)``.
    """

    def __init__(self, source: Any, attend: Attention) -> None:
        """Take over the layers and the number of heads of ``source``."""
        super().__init__()
        self.heads: int = source.heads
        self.to_q, self.to_k, self.to_v = source.to_q, source.to_k, source.to_v
        self.to_out = source.to_out
        self.attend = attend

    def forward(
        self,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
    ) -> Tensor:
        """Project, attend, project back."""
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        query, key, value = self.to_q(hidden_states), self.to_k(context), self.to_v(context)
        return self._out(self.attend(query, key, value, attention_mask, self.heads))

    def _out(self, output: Tensor) -> Tensor:
        for layer in self.to_out if isinstance(self.to_out, nn.ModuleList) else (self.to_out,):
            output = layer(output)
        return output


class DecoupledAttention(ProjectedAttention):
    """Cross-attention to a text, and beside it to the image tokens of IP-Adapters; the sum is projected back.

    Shapes: hidden_states ``(B, Q, C)``; encoder_hidden_states is ``(text, tokens)``, or ``(text, tokens,
    scales)``, of the text ``(B, S, E)``, for each adapter tokens ``(B, T, E)`` or, of several images, ``(B,
    images, T, E)``, and the scales ``(B, adapters)``; attention_mask, of the text, as ever; returns ``(B, Q,
    C)``. Without scales those of the module's own processor hold, as in diffusers.

    Source: arXiv 2308.06721 (IP-Adapter), eq. 5; diffusers' ``IPAdapterAttnProcessor2_0``. There the scale
    multiplies what comes out of an attention, here its values, which are far fewer.
    """

    def __init__(self, source: Any, attend: Attention) -> None:
        """Take over the layers of ``source``, an attention of diffusers with an IP-Adapter's processor."""
        super().__init__(source, attend)
        self.processor = source.processor

    def forward(  # type: ignore[override]
        self,
        hidden_states: Tensor,
        encoder_hidden_states: tuple[Tensor, Sequence[Tensor]] | tuple[Tensor, Sequence[Tensor], Tensor],
        attention_mask: Tensor | None = None,
    ) -> Tensor:
        """Project, attend to each, add, project back."""
        text, tokens, *given = encoder_hidden_states
        query = self.to_q(hidden_states)
        output = self.attend(query, self.to_k(text), self.to_v(text), attention_mask, self.heads)
        adapters = zip(
            self.processor.to_k_ip, self.processor.to_v_ip, tokens, self._scales(given), strict=True
        )
        for to_key, to_value, image, scale in adapters:
            image = image.flatten(1, 2) if image.ndim == 4 else image
            output = output + self.attend(query, to_key(image), to_value(image) * scale, None, self.heads)
        return self._out(output)

    def _scales(self, given: Sequence[Any]) -> Iterable[Any]:
        """A number for each adapter, or a tensor (B, 1, 1)."""
        if not given:
            return list(self.processor.scale)
        (scales,) = given
        return [scales[:, number, None, None] for number in range(scales.shape[1])]
