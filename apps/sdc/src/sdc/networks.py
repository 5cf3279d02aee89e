"""ControlNets and adapters that are converted, or verified, beside a checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click

from sdc.sampling_options import options
from sdc.several import SeveralValues
from sdc.sources import open_checkpoint

if TYPE_CHECKING:
    from sd_convert import Checkpoint, ComponentKind

F = TypeVar("F", bound=Callable[..., Any])

#: The roles of a bundle's components that come from these options.
OPTIONS = {
    "controlnet": "--convert-controlnet",
    "t2i_adapter": "--convert-t2i-adapter",
    "image_projection": "--ip-adapter",
    "preview_decoder": "--preview-vae",
}

network_options = options(
    click.option(
        OPTIONS["controlnet"],
        cls=SeveralValues,
        multiple=True,
        metavar="NET ...",
        help="ControlNets beside the checkpoint: a folder, .safetensors file or hub id each. The UNet needs "
        "--unet-support-controlnet.",
    ),
    click.option(
        "--union-hints",
        type=click.IntRange(min=1),
        default=1,
        show_default=True,
        help="How many hints a union ControlNet among them takes at once.",
    ),
    click.option(
        OPTIONS["t2i_adapter"],
        cls=SeveralValues,
        multiple=True,
        metavar="NET ...",
        help="T2I-Adapters, likewise; the UNet needs --unet-support-t2i-adapter.",
    ),
    click.option(
        OPTIONS["image_projection"],
        cls=SeveralValues,
        multiple=True,
        metavar="FILE ...",
        help="IP-Adapters in the UNet: a .safetensors file each, or ORGANISATION/NAME/FILE.safetensors.",
    ),
    click.option(
        "--image-encoder",
        metavar="FOLDER|ID",
        help="The CLIP vision model of the IP-Adapters; by default image_encoder beside the first of them.",
    ),
    click.option(
        OPTIONS["preview_decoder"],
        metavar="VAE",
        help="A tiny VAE (TAESD) whose decoder shows how far a picture is: a folder, file or hub id.",
    ),
)


def open_with_networks(
    checkpoint: str,
    source: dict[str, Any],
    *,
    controlnets: Sequence[str],
    union_hints: int,
    adapters: Sequence[str],
    ip_adapters: Sequence[str],
    image_encoder: str | None,
    preview_vae: str | None,
    components: Collection[str] | None = None,
) -> tuple[Checkpoint, tuple[ComponentKind, ...]]:
    """The checkpoint that the options say, with what they name beside it, and the kinds of all of them.

    ``components``: those of the checkpoint or of what is beside it; None is all.
    """
    from sd_convert import KINDS, with_preview_vae

    if image_encoder is not None and not ip_adapters:
        raise click.UsageError("expected --ip-adapter with --image-encoder, got none")
    if union_hints > 1 and not controlnets:
        raise click.UsageError("expected --convert-controlnet with --union-hints, got none")
    if not controlnets and not adapters and not ip_adapters and preview_vae is None:
        return open_checkpoint(checkpoint, source, components=components), KINDS
    own = [kind.name for kind in KINDS]
    # the config of the UNet is always needed, and its weights are opened, not read
    chosen = None if components is None else [name for name in components if name in own] or ["unet"]
    if chosen is not None and ip_adapters and "unet" not in chosen:
        chosen.append("unet")
    opened = open_checkpoint(checkpoint, source, components=chosen)
    offline = {"local_files_only": source["offline"]}
    previews: tuple[ComponentKind, ...] = ()
    if preview_vae is not None:
        opened, previews = with_preview_vae(opened, preview_vae, **offline)
    if not controlnets and not adapters and not ip_adapters:
        return opened, (*KINDS, *previews)
    from sd_controlnet.conversion import with_controlnets, with_ip_adapters, with_t2i_adapters

    opened, kinds = with_controlnets(opened, controlnets, union_hints=union_hints, **offline)
    opened, more = with_t2i_adapters(opened, adapters, **offline)
    opened, images = with_ip_adapters(opened, ip_adapters, image_encoder, **offline)
    return opened, (*KINDS, *previews, *kinds, *more, *images)
