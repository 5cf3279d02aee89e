"""The networks of a checkpoint, one file for each kind; torch and its libraries load on demand."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Final

from sd_convert.checkpoint.checkpoint import Checkpoint
from sd_convert.components.component import Component
from sd_convert.conversion.options import ConversionOptions
from sd_convert.coreml import import_coremltools
from sd_convert.facts import chosen_sizes
from sd_convert.libraries import check_lowering

from .instantiate import on_meta_device
from .kind import ComponentKind, Drawing, Network, Shapes
from .part import Part, Ports, chosen_parts, kind_named, part_of
from .safety_checker import SAFETY_CHECKER
from .text_encoder import TEXT_ENCODER, TEXT_ENCODER_2
from .unet import UNET
from .vae import PREVIEW_DECODER, VAE_DECODER, VAE_ENCODER

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

#: The kinds that are converted, in the usual order.
KINDS: Final = (TEXT_ENCODER, TEXT_ENCODER_2, UNET, VAE_DECODER, VAE_ENCODER, SAFETY_CHECKER)


def load_libraries(kinds: Iterable[ComponentKind]) -> None:
    """Import what converting components of ``kinds`` needs, so that the first one's time is its own.

    Raises:
        MissingLibrariesError: it is not installed.
    """
    kinds = tuple(kinds)
    check_lowering(" and ".join(kind.name for kind in kinds))
    import_coremltools()
    for library in dict.fromkeys(library for kind in kinds for library in kind.libraries):
        import_module(library)


def build_component(
    name: str,
    checkpoint: Checkpoint,
    options: ConversionOptions,
    *,
    kinds: Iterable[ComponentKind] = KINDS,
) -> Component:
    """The component ``name`` on the meta device, in float16, with weights that were held against its config.

    Raises:
        CheckpointError: the config or the weights are missing, or contradict each other.
        UnsupportedArchitectureError: the config has a key or value that is not converted.
        OptionsError: a latent size that the network cannot take.
    """
    part = part_of(kind_named(name, kinds), checkpoint)
    ports = part.ports(chosen_sizes(part.facts, options), "float16")
    return part.build(ports, part.metadata(options, {}))


def sample_inputs(
    component: Component,
    checkpoint: Checkpoint,
    *,
    seed: int = 0,
    kinds: Iterable[ComponentKind] = KINDS,
) -> Mapping[str, npt.NDArray[np.generic]]:
    """One array for each input port, in its shape and dtype, of the kind that the network sees when it draws.

    Equal seeds give equal arrays. What each port gets is its kind's to say, see :mod:`.draws`.
    """
    return part_of(kind_named(component.name, kinds), checkpoint).draw(component.inputs, seed=seed)


__all__ = [
    "KINDS",
    "PREVIEW_DECODER",
    "ComponentKind",
    "Drawing",
    "Network",
    "Part",
    "Ports",
    "Shapes",
    "build_component",
    "chosen_parts",
    "kind_named",
    "load_libraries",
    "on_meta_device",
    "part_of",
    "sample_inputs",
]
