"""What the configs of the text encoders say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from .section import Section

# transformers' own defaults, for configs that leave the key out
_TOKENS: Final = 77
_WIDTH: Final = 512
_LAYERS: Final = 12
_VOCABULARY: Final = 49408
_END: Final = 49407

#: In checkpoints of SDXL the second one, whose pooled output is projected.
_PROJECTED: Final = "text_encoder_2"


@dataclass(frozen=True, slots=True)
class TextEncoderFacts:
    """A CLIP text encoder: ``tokens`` that it has positions for, ``width`` of its hidden states.

    ``end_token`` comes after the start in CLIP's vocabularies; configs of 2022 state other, wrong ids.
    """

    name: str
    tokens: int
    width: int
    layers: int
    is_projected: bool
    pooled_width: int
    vocabulary: int
    end_token: int


def text_facts(name: str, config: Section) -> TextEncoderFacts:
    """``config`` parsed.

    Raises:
        UnsupportedArchitectureError: a number that is none.
    """
    width, vocabulary = config.count("hidden_size", _WIDTH), config.count("vocab_size", _VOCABULARY)
    end, is_projected = config.values.get("eos_token_id", _END), name == _PROJECTED
    return TextEncoderFacts(
        name=name,
        tokens=config.count("max_position_embeddings", _TOKENS),
        width=width,
        layers=config.count("num_hidden_layers", _LAYERS),
        is_projected=is_projected,
        pooled_width=config.count("projection_dim", _WIDTH) if is_projected else width,
        vocabulary=vocabulary,
        end_token=end if type(end) is int and 2 < end < vocabulary else vocabulary - 1,
    )
