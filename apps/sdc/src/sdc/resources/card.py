"""The model card of a repository on the Hub: ``README.md`` with a head that the Hub reads."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Final

from sd_bundle import Bundle

from sdc.console import printable, size

_HUB_ID: Final = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
_TASKS: Final = {"text-to-image": "text-to-image"}
_UNITS: Final = {
    "ALL": "any",
    "CPU_AND_GPU": "CPU and GPU",
    "CPU_AND_NE": "CPU and Neural Engine",
    "CPU_ONLY": "CPU",
}


def model_card(
    repository: str, variants: Mapping[str, Bundle], zips: Mapping[str, int], *, license_id: str
) -> str:
    """The card's text. What checkpoints call themselves is quoted, never obeyed as YAML or Markdown."""
    bundle = next(iter(variants.values()))
    return "\n".join(
        [
            *_head(bundle, license_id),
            f"# {repository}",
            "",
            *_about(bundle),
            "",
            "| folder | for | oldest system | bits per weight |",
            "|---|---|---|---|",
            *(_row(attention, one) for attention, one in variants.items()),
            "",
            "`packages` has Core ML packages, `compiled` what Apple's Swift package and apps load; "
            "the zips hold the compiled models:",
            "",
            *(f"- `{name}` ({size(count)})" for name, count in zips.items()),
            "",
            "## Where it comes from",
            "",
            *_sources(bundle),
            "",
        ]
    )


def _head(bundle: Bundle, license_id: str) -> list[str]:
    source = bundle.manifest.provenance.source
    lines = ["---", f"license: {json.dumps(license_id)}"]
    if _HUB_ID.fullmatch(source):
        lines.append(f"base_model: {json.dumps(source)}")
    task = _TASKS.get(bundle.manifest.model.task, "image-to-image")
    return [*lines, f"pipeline_tag: {task}", "tags:", "- core-ml", "- stable-diffusion", f"- {task}", "---"]


def _about(bundle: Bundle) -> Iterator[str]:
    model = bundle.manifest.model
    sizes = ", ".join(str(one.image) for one in model.sizes)
    kind = f"{model.family}, {model.task}"
    yield f"{_quoted(model.identifier)} for Core ML: {kind}, pictures of {sizes} pixels."
    yield "Loading on a device was not tried where this was made."


def _row(attention: str, bundle: Bundle) -> str:
    unet = bundle.only("denoiser")
    bits = "16" if unet.compression is None else f"{unet.compression.bits_per_weight:.2f}"
    return f"| `{attention}` | {_UNITS[unet.compute_unit]} | {unet.deployment_target} | {bits} |"


def _sources(bundle: Bundle) -> Iterator[str]:
    provenance = bundle.manifest.provenance
    revision = "" if provenance.revision is None else f", revision {_quoted(provenance.revision)}"
    yield f"- checkpoint: {_quoted(provenance.source)}{revision}"
    weights = provenance.weights
    if weights is not None:
        for lora in weights.loras:
            yield f"- LoRA {_quoted(lora.file.name)}, scale {lora.scale:g}, sha256 `{lora.file.sha256}`"
        for embedding in weights.embeddings:
            yield f"- embedding {_quoted(embedding.token)}: {_quoted(embedding.file.name)}"
        if weights.vae is not None:
            yield f"- VAE: {_quoted(weights.vae.source)}"
    tools = ", ".join(f"{name} {version}" for name, version in sorted(provenance.tools.items()))
    yield f"- made with {_quoted(tools)}"


def _quoted(text: str) -> str:
    """As code, on one line."""
    words = printable(" ".join(text.split())).replace("`", "'").replace("|", "/")
    return f"`{words}`"
