"""``sdc serve``: a page that draws with a bundle, and the web UI's HTTP API, on this machine alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sdc.apple_options import compute_unit_option, engine_on
from sdc.engines import engine_options
from sdc.hires_options import hires_bundle_option
from sdc.preview_options import preview_option
from sdc.text_options import files_by_name, text_options

if TYPE_CHECKING:
    from sd_bundle import ComputeUnit
    from sd_runtime import Precision

    from sdc.serve.studio import Studio


@click.command("serve", short_help="A local page that draws, and the web UI's HTTP API.")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option(
    "--port",
    default=7860,
    show_default=True,
    type=click.IntRange(0, 65535),
    help="Of 127.0.0.1; 0 takes a free one.",
)
@click.option(
    "-o",
    "--output",
    default=Path("sdc-pictures"),
    show_default=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="The folder of the gallery.",
)
@click.option("--disable-safety", is_flag=True, help="Do not ask the bundle's safety checker, if it has one.")
@click.option("--reduce-memory", is_flag=True, help="Keep no network beside the denoiser: slower.")
@text_options
@hires_bundle_option
@preview_option
@compute_unit_option
@engine_options("auto")
def command(
    bundle: Path,
    *,
    port: int,
    output: Path,
    disable_safety: bool,
    reduce_memory: bool,
    hires_bundle: Path | None,
    preview: str | None,
    embedding: tuple[str, ...],
    clip_skip: int | None,
    compute_unit: ComputeUnit | None,
    engine: str,
    precision: Precision | None,
) -> None:
    """Draw with BUNDLE from a page in the browser, or from programs that speak AUTOMATIC1111's HTTP API.

    Nobody else can reach it: it listens on 127.0.0.1, and pages from elsewhere are refused. Ctrl-C ends it.
    """
    from sdc.console import console
    from sdc.serve.app import App
    from sdc.serve.gallery import Gallery
    from sdc.serve.guard import hosts
    from sdc.serve.http import ADDRESS, Server

    studio = open_studio(
        bundle,
        engine=engine,
        precision=precision,
        compute_unit=compute_unit,
        check_safety=not disable_safety,
        reduce_memory=reduce_memory,
        hires_bundle=hires_bundle,
        preview=preview,
        embeddings=files_by_name(embedding),
        clip_skip=clip_skip or 1,
    )
    try:
        server = Server(port, lambda taken: App(studio, Gallery(output), hosts(taken)))
    except OSError as error:
        raise click.ClickException(
            f"expected a free port, got {port} of {ADDRESS}: {error.strerror}; choose another with --port"
        ) from None
    model = studio.bundle.manifest.model.identifier
    console().print(f"{model}: http://{ADDRESS}:{server.server_port}/ (Ctrl-C ends it)", soft_wrap=True)
    server.run()
    console().print(f"ended; the pictures are in {output}", soft_wrap=True)


def open_studio(
    bundle: Path,
    *,
    engine: str = "auto",
    precision: Precision | None = None,
    compute_unit: ComputeUnit | None = None,
    check_safety: bool = True,
    reduce_memory: bool = False,
    hires_bundle: Path | None = None,
    preview: str | None = None,
    embeddings: Mapping[str, Path] | None = None,
    clip_skip: int = 1,
) -> Studio:
    """The studio of the bundle at that path; no network is loaded."""
    from sd_runtime import ImageSize, Pipeline, open_any, read_embeddings

    from sdc.serve.studio import Studio

    resolved = engine_on(engine, precision, compute_unit)

    def open_size(size: ImageSize) -> Pipeline:
        return Pipeline.open(
            bundle,
            engine=resolved,
            size=size,
            reduce_memory=reduce_memory,
            hires_bundle=hires_bundle,
            embeddings=embeddings,
            clip_skip=clip_skip,
        )

    opened = open_any(bundle, None)
    read_embeddings(embeddings or {}, opened)  # says now what is wrong with them
    if preview is not None:
        open_size(opened.manifest.model.image).check_preview(preview)
    return Studio(opened, open_size, check_safety, tuple(embeddings or ()), clip_skip, preview)
