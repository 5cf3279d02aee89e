"""Segmentation: a label for each pixel as the colour that ControlNets know it by."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from sd_controlnet.errors import HintError

if TYPE_CHECKING:
    from PIL.Image import Image

#: RGB of ADE20K's 150 classes, wall first. Source: ``ade_palette`` in lllyasviel's ControlNet, from
#: open-mmlab's mmsegmentation.
_PALETTE: Final = bytes.fromhex(
    "787878b4787806e6e650323204c8037878508c8c8ccc05ffe6e6e604fa07e005ffebff0796053d78784608ff33"
    "ff06528fff8cccff04ff3307cc46030066c83de6faff06330b66ffff0747ff09e00907e6dcdcdcff095c7009ff"
    "08ffd607ffe0ffb8060aff47ff290a07ffffe0ff086608ffff3d06ffc207ff7a0800ff14ff0829ff05990633ff"
    "eb0cffa0961400a3ff8c8c8cfa0a0f14ff001fff00ff1f00ffe00099ff000000ffff470000ebff00adff1f00ff"
    "0bc8c8ff520000fff5003dff00ff7000ff85ff0000ffa300ff6600c2ff00008fff33ff000052ff00ff2900ffad"
    "0a00ffadff0000ff99ff5c00ff00ffff00f5ff0066ffad00ff0014ffb8b8001fff00ff3d0047ffff00cc00ffc2"
    "00ff52000aff0070ff3300ff00c2ff007aff00ffa3ff990000ff0aff70008fff005200ffa3ff00ffeb0008b8aa"
    "8500ff00ff5cb800ffff001f00b8ff00d6ffff00705cff0000e0ff70e0ff46b8a0a300ff9900ff47ff00ff00a3"
    "ffcc00ff008f00ffeb85ff00ff00ebf500ffff007afff5000abed4d6ff0000ccff1400ffffff000099ff0029ff"
    "00ffcc2900ff29ff00ad00ff00f5ff4700ff7a00ff00ffb8005cffb8ff000085ffffd60019c2c266ff005c00ff"
)
ADE20K: Final = np.frombuffer(_PALETTE, np.uint8).reshape(-1, 3)


def segmentation(labels: Image) -> npt.NDArray[np.uint8]:
    """(H, W, 3): the colours of ``labels``, a picture of one channel whose numbers are ADE20K's classes.

    Raises:
        HintError: several channels, or a number that is no class.
    """
    numbers = np.asarray(labels)
    if numbers.ndim != 2 or numbers.dtype.kind not in "bui":
        raise HintError(
            "expected a label map, a picture of one channel with the number of a class at each pixel, got "
            f"one of mode {labels.mode}"
        )
    if (largest := int(numbers.max())) >= len(ADE20K) or numbers.min() < 0:
        raise HintError(f"expected labels from 0 to {len(ADE20K) - 1}, ADE20K's classes, got {largest}")
    return ADE20K[numbers.astype(np.intp)]
