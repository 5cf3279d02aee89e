"""A report with everything in it, and with names that no page may take for its own markup."""

from __future__ import annotations

import math
import struct
import zlib

from sd_compress.report import Candidate, Environment, LayerRow, OutputSnr, Part, Report, Sensitivity

HOSTILE = "</script><img src=x onerror=\"alert('1')\">&amp;{{ 7*7 }}"


def png(red: int, green: int, blue: int, size: int = 16) -> bytes:
    """One colour, as PNG: signature, header, data, end (RFC 2083)."""
    rows = (b"\0" + bytes((red, green, blue)) * size) * size

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", size, size, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        (chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b""))
    )


_WIDTHS = {"original": 16.0, "8 bits": 8.0, "4 bits": 4.0, "2 bits": 2.0, "plan": 3.4}
_SNR = {"original": None, "8 bits": 41.7, "4 bits": 16.9, "2 bits": 4.3, "plan": 20.6}
_ELEMENTS = {"unet": 4_100_000, "text_encoder": 310_000}


def example_report(*, layers: int = 40, hostile: bool = False) -> Report:
    """Two components, five candidates, two prompts."""
    prompts = (
        "a red circle on a blue background",
        HOSTILE if hostile else "a green star on a white background",
    )
    return Report(
        format="sd-compress-report",
        version=1,
        model=HOSTILE if hostile else "sdc-demo",
        components=("unet", "text_encoder"),
        prompts=prompts,
        seed=93,
        num_inference_steps=20,
        samples={"unet": 24, "text_encoder": 3},
        candidates=tuple(_candidate(name, index) for index, name in enumerate(_WIDTHS)),
        wanted_snr=20.0,
        chosen="plan",
        layers=tuple(_layer(index, hostile=hostile) for index in range(layers)),
        sensitivity=Sensitivity((4, 2), "dB", "of the output with this weight alone at that width", "low"),
        environment=Environment(
            {"sd-compress": "0.1.0", "openvino": "2026.1"}, "Linux x86_64", "OpenVINO fp32"
        ),
        seconds=83.4,
        peak_memory=1_234_567_890,
    )


def _candidate(name: str, index: int) -> Candidate:
    kind = {"original": "original", "plan": "recipe"}.get(name, "uniform")
    pictures = (png(220, 40 * index, 30), png(20, 120, 50 * index))
    parts = tuple(_part(component, name) for component in _ELEMENTS)
    return Candidate(name, kind, "k-means", parts, pictures)  # type: ignore[arg-type]


def _part(component: str, name: str) -> Part:
    bits, snr = _WIDTHS[name], _SNR[name]
    other = None if snr is None or component == "unet" else snr + 9
    outputs = (OutputSnr("noise_pred" if component == "unet" else "last_hidden_state", other or snr),)
    return Part(component, f"every weight {bits:g} bits", bits, int(_ELEMENTS[component] * bits / 8), outputs)


def _layer(index: int, *, hostile: bool) -> LayerRow:
    component = "text_encoder" if index % 5 == 4 else "unet"
    is_hostile = hostile and index == 3
    module = HOSTILE if is_hostile else f"{component}_down_blocks_{index // 8}_resnets_{index % 8}_conv"
    side = 16 + 8 * (index * 7 % 11)
    elements = side * side * 9
    return LayerRow(
        weight=HOSTILE if is_hostile else f"{module}_weight",
        component=component,
        module=module,
        op="conv" if index % 3 else "linear",
        shape=(side, side, 3, 3),
        elements=elements,
        stored={name: int(elements * bits / 8) for name, bits in _WIDTHS.items()},
        sensitivity={"4": 24 + 6 * math.sin(index), "2": 9 + 4 * math.sin(index)},
    )
