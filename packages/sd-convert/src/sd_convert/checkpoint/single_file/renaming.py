"""Names of modules in the original (CompVis, Stability) layout and in diffusers', as data.

A table maps dotted prefixes to dotted prefixes; the longest prefix that a name has decides.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, TypeAlias

Table: TypeAlias = Mapping[str, str]

UNET_ENDS: Final[Table] = {
    "time_embed.0": "time_embedding.linear_1",
    "time_embed.2": "time_embedding.linear_2",
    "time_embed.cond_proj": "time_embedding.cond_proj",
    "label_emb.0.0": "add_embedding.linear_1",
    "label_emb.0.2": "add_embedding.linear_2",
    "input_blocks.0.0": "conv_in",
    "out.0": "conv_norm_out",
    "out.2": "conv_out",
}
UNET_RESNET: Final[Table] = {
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
    "skip_connection": "conv_shortcut",
}
VAE_ENDS: Final[Table] = {
    "encoder.conv_in": "encoder.conv_in",
    "encoder.norm_out": "encoder.conv_norm_out",
    "encoder.conv_out": "encoder.conv_out",
    "decoder.conv_in": "decoder.conv_in",
    "decoder.norm_out": "decoder.conv_norm_out",
    "decoder.conv_out": "decoder.conv_out",
    "quant_conv": "quant_conv",
    "post_quant_conv": "post_quant_conv",
}
VAE_RESNET: Final[Table] = {
    "norm1": "norm1",
    "conv1": "conv1",
    "norm2": "norm2",
    "conv2": "conv2",
    "nin_shortcut": "conv_shortcut",
    "conv_shortcut": "conv_shortcut",
}
#: Beside CompVis' names those of diffusers, old and new, which some tools leave in files of this layout.
VAE_ATTENTION: Final[Table] = {
    "norm": "group_norm",
    "group_norm": "group_norm",
    "q": "to_q",
    "query": "to_q",
    "to_q": "to_q",
    "k": "to_k",
    "key": "to_k",
    "to_k": "to_k",
    "v": "to_v",
    "value": "to_v",
    "to_v": "to_v",
    "proj_out": "to_out.0",
    "proj_attn": "to_out.0",
    "to_out.0": "to_out.0",
}
OPEN_CLIP_LAYER: Final[Table] = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "attn.out_proj": "self_attn.out_proj",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}
OPEN_CLIP_ENDS: Final[Table] = {
    "token_embedding": "text_model.embeddings.token_embedding",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "ln_final": "text_model.final_layer_norm",
}


def rename(name: str, table: Table) -> str | None:
    """``name`` with its longest prefix in ``table`` replaced; None if it has none there.

    Example: ``rename("out.2.weight", {"out": "a", "out.2": "b"})`` is ``"b.weight"``.
    """
    parts = name.split(".")
    for count in range(len(parts), 0, -1):
        if (found := table.get(".".join(parts[:count]))) is not None:
            return ".".join((found, *parts[count:]))
    return None


def below(prefix: str, new: str, table: Table) -> dict[str, str]:
    """``table`` for the modules below ``prefix``, which is called ``new``."""
    return {f"{prefix}.{theirs}": f"{new}.{ours}" for theirs, ours in table.items()}
