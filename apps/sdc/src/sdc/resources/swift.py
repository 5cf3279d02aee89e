"""The ``Resources`` folder of Apple's Swift package, which Mochi Diffusion and other apps read as well."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

from sd_bundle import Bundle, ImageSize
from sd_bundle.drafts import draft_folder, link_or_copy

from sdc.resources.apps import Seen, as_apps_see
from sdc.resources.names import (
    SUFFIX,
    Resource,
    ResourcesError,
    controlled_unet,
    controlnet_name,
    refiner,
    resources,
)
from sdc.resources.ports import check_controlnet

_TOKENIZER: Final = ("vocab.json", "merges.txt")

#: Compiles a package to a path: what ``sd_mil.compile_model`` does.
Compile = Callable[[Path, Path], object]


@dataclass(frozen=True, slots=True)
class CompiledResource:
    """One compiled model: its name without the suffix, the bytes of its files, and how long it took."""

    name: str
    bytes: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Resources:
    """What was written, and what apps take it for.

    ``left_out``: forms of the UNet that the bundle has and no app looks for.
    """

    path: Path
    models: tuple[CompiledResource, ...]
    seen: Seen
    left_out: tuple[str, ...] = ()


def compile_linked(package: Path, compiled: Path) -> None:
    """Compile a package, its weights by hard links where the file system can."""
    from sd_mil import compile_model

    compile_model(package, compiled, copy=link_or_copy)


def write_all(
    bundle: Bundle, folder: Path, *, size: ImageSize | None = None, **options: Any
) -> dict[str, Resources]:
    """The resources of a bundle: of one size, by the name ``""``, else in a folder for each.

    ``options`` and what is raised: see :func:`write_resources`.
    """
    if size is None and len(bundle.manifest.model.sizes) > 1:
        return write_each_size(bundle, folder, compile_linked, **options)
    return {"": write_resources(bundle, folder, compile_linked, size=size, **options)}


def write_each_size(
    bundle: Bundle,
    folder: Path,
    compile_package: Compile,
    *,
    with_refiner: Bundle | None = None,
    with_controlled: Bundle | None = None,
    controlnets: Iterable[Path] = (),
    progress: Callable[[str], None] = lambda _: None,
) -> dict[str, Resources]:
    """As :func:`write_resources`, in a folder for each picture size of the bundle (``512x768``).

    Apps take a folder for one model of one size. What ``compile_package`` links is on the disk once.
    """
    if folder.exists() or folder.is_symlink():
        raise FileExistsError(f"{folder} exists: choose another output")
    made: dict[str, Resources] = {}
    with draft_folder(folder) as draft:
        for size in (each.image for each in bundle.manifest.model.sizes):
            made[str(size)] = write_resources(
                bundle,
                draft / str(size),
                compile_package,
                size=size,
                with_refiner=with_refiner,
                with_controlled=with_controlled,
                controlnets=controlnets,
                progress=partial(_in_folder, progress, size),
            )
        draft.rename(folder)
    return {size: replace(one, path=folder / size) for size, one in made.items()}


def _in_folder(progress: Callable[[str], None], size: ImageSize, what: str) -> None:
    progress(f"{size}: {what}")


def write_resources(
    bundle: Bundle,
    folder: Path,
    compile_package: Compile,
    *,
    size: ImageSize | None = None,
    with_refiner: Bundle | None = None,
    with_controlled: Bundle | None = None,
    controlnets: Iterable[Path] = (),
    progress: Callable[[str], None] = lambda _: None,
) -> Resources:
    """Compile the networks of a bundle under the names that apps look for, beside the tokenizer's files.

    ``size`` chooses among several picture sizes. ``with_refiner`` is the bundle of SDXL's refiner,
    ``with_controlled`` one of the same model whose UNet takes ControlNets, which are packages of their own; a
    bundle whose UNet has both forms needs none. All of it appears at the end, or nothing.

    Raises:
        ResourcesError: apps could not read it, or would take it for something else.
        FileExistsError: there is something at ``folder``.
        BundleError: a bundle lacks what it should have, or its files are not those that it lists.
        SdMilError: a package that cannot be compiled.
        OSError: the disk is full.
    """
    if folder.exists() or folder.is_symlink():
        raise FileExistsError(f"{folder} exists: choose another output")
    one = _of_one_size(bundle, size)
    own = _own_controlled(bundle, one) if with_controlled is None else None
    planned = [*resources(one), *_beside(one, with_refiner, with_controlled or own)]
    controls = _controls(controlnets, planned)
    with draft_folder(folder) as draft:
        _copy_tokenizer(one, draft)
        models = [_compiled(each, draft, compile_package, progress) for each in planned]
        for name, package in controls.items():
            check_controlnet(package, [*_unets(planned)])
            models.append(_timed(f"controlnet/{name}", package, draft, compile_package, progress))
        seen = as_apps_see(draft)
        _check_seen(seen, one)
        draft.rename(folder)
    taken = [unet.only("denoiser").variant.form for unet in (one, own) if unet is not None]
    others = tuple(str(form) for form in bundle.forms(one.manifest.model.image) if form not in taken)
    return Resources(folder, tuple(models), seen, others)


def _of_one_size(bundle: Bundle, size: ImageSize | None) -> Bundle:
    sizes = bundle.manifest.model.sizes
    if size is None and len(sizes) > 1:
        have = ", ".join(str(each.image) for each in sizes)
        raise ResourcesError(
            f"expected one picture size for a folder, got {have}: choose one, or convert for one size"
        )
    if bundle.manifest.model.family == "sdxl-refiner":
        raise ResourcesError(
            f"expected a model that draws by itself, got SDXL's refiner in {bundle.path}: "
            "give it with --refiner, beside the base model"
        )
    return bundle.at_size(size)


def _own_controlled(bundle: Bundle, one: Bundle) -> Bundle | None:
    """The bundle with its UNet for ControlNets, where it has one that is otherwise the same."""
    form, image = one.only("denoiser").variant.form, one.manifest.model.image
    taking = replace(form, takes=(*form.takes, "controlnet"))
    has_both = "controlnet" not in form.takes and taking in bundle.forms(image)
    return bundle.at_size(image, taking) if has_both else None


def _beside(
    bundle: Bundle, with_refiner: Bundle | None, with_controlled: Bundle | None
) -> Iterable[Resource]:
    image = bundle.manifest.model.image
    if with_refiner is not None:
        if bundle.manifest.model.family != "sdxl":
            raise ResourcesError(f"expected SDXL beside its refiner, got {bundle.manifest.model.family}")
        yield from refiner(with_refiner.at_size(image))
    if with_controlled is not None:
        yield from controlled_unet(with_controlled.at_size(image))


def _unets(planned: Iterable[Resource]) -> Iterable[Resource]:
    return (one for one in planned if one.name.startswith("ControlledUnet"))


def _controls(packages: Iterable[Path], planned: list[Resource]) -> dict[str, Path]:
    names = [one.name for one in planned]
    if len(set(names)) != len(names):
        raise ResourcesError("expected one UNet for ControlNets, got one in each of two bundles")
    controls: dict[str, Path] = {}
    for package in packages:
        name = controlnet_name(package)
        if name.casefold() in (known.casefold() for known in controls):
            raise ResourcesError(f"expected ControlNets of different names, got {name} twice")
        controls[name] = package
    if controls and not any(_unets(planned)):
        raise ResourcesError(
            "expected a UNet that takes ControlNets, got none: convert it with --unet-support-controlnet, "
            "and give that bundle with --controlled where this one is another"
        )
    return controls


def _compiled(
    resource: Resource, draft: Path, compile_package: Compile, progress: Callable[[str], None]
) -> CompiledResource:
    package = resource.bundle.checked_folder(resource.package)
    with resource.bundle.unchanged(resource.package):
        return _timed(resource.name, package, draft, compile_package, progress)


def _timed(
    name: str, package: Path, draft: Path, compile_package: Compile, progress: Callable[[str], None]
) -> CompiledResource:
    progress(name)
    began, compiled = time.perf_counter(), draft / f"{name}{SUFFIX}"
    compiled.parent.mkdir(exist_ok=True)
    compile_package(package, compiled)
    count = sum(file.stat().st_size for file in compiled.rglob("*") if file.is_file())
    return CompiledResource(name, count, time.perf_counter() - began)


def _copy_tokenizer(bundle: Bundle, draft: Path) -> None:
    """The one vocabulary of a folder, which all text encoders share."""
    encoders = bundle.manifest.model.text_encoders
    first, *others = (bundle.path / one.tokenizer for one in encoders)
    for name in _TOKENIZER:
        paths = [f"{one.tokenizer}/{name}" for one in encoders]
        if missing := [path for path in paths if path not in bundle.manifest.files]:
            raise ResourcesError(f"expected {missing[0]} in {bundle.path}, which apps read, got no such file")
        with bundle.unchanged(*paths):
            content = (first / name).read_bytes()
            if any((other / name).read_bytes() != content for other in others):
                raise ResourcesError(
                    f"expected text encoders with the same {name}, as apps have one for all, got others"
                )
            shutil.copyfile(first / name, draft / name)


def _check_seen(seen: Seen, bundle: Bundle) -> None:
    """Hold what apps will believe against what the bundle says."""
    model = bundle.manifest.model
    wanted = "sdxl" if model.family == "sdxl" else "sd"
    if seen.family != wanted:
        raise ResourcesError(f"expected apps to take it for {wanted}, got {seen.family}")
    if seen.size not in (None, (model.image.width, model.image.height)):
        raise ResourcesError(f"expected apps to draw {model.image}, got {seen.size}")
    attention = bundle.only("denoiser").attention_implementation or "ORIGINAL"
    if attention.startswith("SPLIT_EINSUM") and seen.attention != "split_einsum":
        raise ResourcesError(f"expected apps to find {attention}, got no Ios16.einsum in the compiled UNet")
