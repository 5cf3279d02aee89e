"""Weight codecs: a file for each kind of ``constexpr_*`` operation, decoded in numpy to coremltools' bits."""

from sd_mil.constexpr import affine, blockwise, cast, joint, palette, sparse  # noqa: F401 - registers them
from sd_mil.constexpr.codec import CODECS, Codec, codec, is_compressed
from sd_mil.constexpr.decoding import decode
from sd_mil.constexpr.packing import look_up, pack, unpack

__all__ = ["CODECS", "Codec", "codec", "decode", "is_compressed", "look_up", "pack", "unpack"]
