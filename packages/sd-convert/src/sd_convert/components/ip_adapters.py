"""IP-Adapters in a UNet: attention to images beside that to the text, in each of its cross-attentions.

Source: arXiv 2308.06721 (IP-Adapter); diffusers' loaders/unet.py, ``_convert_ip_adapter_attn_to_diffusers``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from sd_convert.checkpoint.ip_adapters import IMAGE_TOKENS_KEY, MOST_IP_ADAPTERS
from sd_convert.facts import Section

#: The name of one's tensor in the UNet's weights: what was number, attention and name in its file.
TENSOR: Final = "ip_adapter.{adapter}.{attention}.{projection}.weight"
_MOST_TOKENS: Final = 4096
_PROJECTIONS: Final = ("to_k_ip", "to_v_ip")


def image_tokens(config: Section) -> tuple[int, ...]:
    """The number of tokens of each IP-Adapter that a UNet of that config has.

    Raises:
        UnsupportedArchitectureError: they are no such numbers, or too many.
    """
    counts = config.items(IMAGE_TOKENS_KEY) or ()
    if len(counts) > MOST_IP_ADAPTERS or not all(type(n) is int and 0 < n <= _MOST_TOKENS for n in counts):
        raise config.unexpected(
            IMAGE_TOKENS_KEY, f"up to {MOST_IP_ADAPTERS} whole numbers up to {_MOST_TOKENS}"
        )
    return counts


def without_ip_adapters(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config as diffusers knows it."""
    return {key: value for key, value in config.items() if key != IMAGE_TOKENS_KEY}


def add_ip_adapters(unet: Any, config: Section) -> dict[str, str]:
    """Have each cross-attention of ``unet``, on the meta device, attend to images, too.

    Returns the names of the new parameters, by the names of :data:`TENSOR`.

    Raises:
        UnsupportedArchitectureError: a UNet that projects the text, which would project the images as well.
    """
    from diffusers.models.attention_processor import IPAdapterAttnProcessor2_0
    from sd_attention import DecoupledAttention, on_bsc, original

    if config.values.get("encoder_hid_dim_type") is not None:
        raise config.unexpected("encoder_hid_dim_type", "none beside IP-Adapters")
    counts, names = image_tokens(config), {}
    # diffusers' order, in which files number them: every second one is a cross-attention
    for number, place in enumerate(path for path in unet.attn_processors if "attn2" in path):
        path = place.removesuffix(".processor")
        attention = unet.get_submodule(path)
        width, text = attention.to_q.out_features, attention.to_k.in_features
        attention.processor = IPAdapterAttnProcessor2_0(width, text, num_tokens=counts).to("meta")
        unet.set_submodule(path, DecoupledAttention(attention, on_bsc(original)))
        for adapter in range(len(counts)):
            for projection in _PROJECTIONS:
                name = TENSOR.format(adapter=adapter, attention=2 * number + 1, projection=projection)
                names[name] = f"{place}.{projection}.{adapter}.weight"
    return names
