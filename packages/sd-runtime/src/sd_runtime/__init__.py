"""Stable Diffusion bundles to images, without torch."""

from importlib import import_module
from typing import TYPE_CHECKING, Final

from sd_bundle import (
    AttentionImplementation,
    Bundle,
    BundleComponent,
    BundleError,
    Chunk,
    Compression,
    ComputeUnit,
    ConditioningFacts,
    DenoiserFacts,
    Draft,
    Encodes,
    Family,
    FileHashes,
    FileRecord,
    HiddenStates,
    ImageSize,
    IntegrityError,
    LatentSize,
    Manifest,
    ManifestError,
    MissingComponentError,
    ModelFacts,
    OutputExistsError,
    PictureSize,
    PortsError,
    PortSpec,
    PredictionType,
    Provenance,
    Role,
    Task,
    TextEncoding,
    TimeIds,
    UnsupportedBundleError,
    VaeFacts,
    Variant,
    format_manifest,
    new_bundle,
    open_bundle,
    parse_manifest,
)

if TYPE_CHECKING:
    from sd_runtime.clip_vision import clip_input
    from sd_runtime.conditioning.embeddings import Embedding, read_embeddings
    from sd_runtime.conditioning.guidance import GUIDANCE
    from sd_runtime.conditioning.residuals import (
        ADAPTER_RESIDUAL,
        IMAGE_SCALE,
        IMAGE_TOKENS,
        RESIDUAL,
        Port,
        zero_residuals,
    )
    from sd_runtime.denoiser import Evaluation, Steer, predict_rows
    from sd_runtime.drawing import DEFAULTS
    from sd_runtime.errors import (
        EngineError,
        ImageTextError,
        NumericsError,
        PromptTruncatedWarning,
        SdRuntimeError,
        SettingsError,
        UserImageError,
    )
    from sd_runtime.foreign import Adopted, Unstated, adopt, open_any
    from sd_runtime.masking import MASK_CONTENTS
    from sd_runtime.memory import available_memory
    from sd_runtime.model import (
        ChunkedModel,
        FunctionModel,
        LoadedModel,
        Model,
        Precision,
        open_model,
        resolve_engine,
    )
    from sd_runtime.noise import SEEDS, Rng, draw_noise
    from sd_runtime.picture_texts import format_of, read_texts
    from sd_runtime.pipeline import Pipeline
    from sd_runtime.png import GeneratedImage, read_settings, webui_text
    from sd_runtime.previews import PREVIEWS, latent_to_rgb
    from sd_runtime.recipes import NO_RECIPE, RECIPES, Recipe, recipe_published
    from sd_runtime.request import Request, SamplingOptions
    from sd_runtime.reuse import RNGS, Reused, reused
    from sd_runtime.safety import Safety
    from sd_runtime.settings import ControlSettings, EmbeddingSettings, ImageSettings, SafetyReport
    from sd_runtime.tasks.hires import UPSCALERS
    from sd_runtime.user_image import read_image

__all__ = [
    "ADAPTER_RESIDUAL",
    "DEFAULTS",
    "GUIDANCE",
    "IMAGE_SCALE",
    "IMAGE_TOKENS",
    "MASK_CONTENTS",
    "NO_RECIPE",
    "PREVIEWS",
    "RECIPES",
    "RESIDUAL",
    "RNGS",
    "SEEDS",
    "UPSCALERS",
    "Adopted",
    "AttentionImplementation",
    "Bundle",
    "BundleComponent",
    "BundleError",
    "Chunk",
    "ChunkedModel",
    "Compression",
    "ComputeUnit",
    "ConditioningFacts",
    "ControlSettings",
    "DenoiserFacts",
    "Draft",
    "Embedding",
    "EmbeddingSettings",
    "Encodes",
    "EngineError",
    "Evaluation",
    "Family",
    "FileHashes",
    "FileRecord",
    "FunctionModel",
    "GeneratedImage",
    "HiddenStates",
    "ImageSettings",
    "ImageSize",
    "ImageTextError",
    "IntegrityError",
    "LatentSize",
    "LoadedModel",
    "Manifest",
    "ManifestError",
    "MissingComponentError",
    "Model",
    "ModelFacts",
    "NumericsError",
    "OutputExistsError",
    "PictureSize",
    "Pipeline",
    "Port",
    "PortSpec",
    "PortsError",
    "Precision",
    "PredictionType",
    "PromptTruncatedWarning",
    "Provenance",
    "Recipe",
    "Request",
    "Reused",
    "Rng",
    "Role",
    "Safety",
    "SafetyReport",
    "SamplingOptions",
    "SdRuntimeError",
    "SettingsError",
    "Steer",
    "Task",
    "TextEncoding",
    "TimeIds",
    "Unstated",
    "UnsupportedBundleError",
    "UserImageError",
    "VaeFacts",
    "Variant",
    "adopt",
    "available_memory",
    "clip_input",
    "draw_noise",
    "format_manifest",
    "format_of",
    "latent_to_rgb",
    "new_bundle",
    "open_any",
    "open_bundle",
    "open_model",
    "parse_manifest",
    "predict_rows",
    "read_embeddings",
    "read_image",
    "read_settings",
    "read_texts",
    "recipe_published",
    "resolve_engine",
    "reused",
    "webui_text",
    "zero_residuals",
]

#: The room of each name of this package: it is entered when the name is first asked for (PEP 562), so that
#: ``import sd_runtime`` takes no longer than what a program asks of it.
_ROOMS: Final = {
    "ADAPTER_RESIDUAL": "conditioning.residuals",
    "Adopted": "foreign",
    "ChunkedModel": "model",
    "ControlSettings": "settings",
    "DEFAULTS": "drawing",
    "Embedding": "conditioning.embeddings",
    "EmbeddingSettings": "settings",
    "EngineError": "errors",
    "Evaluation": "denoiser",
    "FunctionModel": "model",
    "GUIDANCE": "conditioning.guidance",
    "GeneratedImage": "png",
    "IMAGE_SCALE": "conditioning.residuals",
    "IMAGE_TOKENS": "conditioning.residuals",
    "ImageSettings": "settings",
    "ImageTextError": "errors",
    "LoadedModel": "model",
    "MASK_CONTENTS": "masking",
    "Model": "model",
    "NO_RECIPE": "recipes",
    "NumericsError": "errors",
    "PREVIEWS": "previews",
    "Pipeline": "pipeline",
    "Port": "conditioning.residuals",
    "Precision": "model",
    "PromptTruncatedWarning": "errors",
    "RECIPES": "recipes",
    "RESIDUAL": "conditioning.residuals",
    "RNGS": "reuse",
    "Recipe": "recipes",
    "Request": "request",
    "Reused": "reuse",
    "Rng": "noise",
    "SEEDS": "noise",
    "Safety": "safety",
    "SafetyReport": "settings",
    "SamplingOptions": "request",
    "SdRuntimeError": "errors",
    "SettingsError": "errors",
    "Steer": "denoiser",
    "UPSCALERS": "tasks.hires",
    "Unstated": "foreign",
    "UserImageError": "errors",
    "adopt": "foreign",
    "available_memory": "memory",
    "clip_input": "clip_vision",
    "draw_noise": "noise",
    "format_of": "picture_texts",
    "latent_to_rgb": "previews",
    "open_any": "foreign",
    "open_model": "model",
    "predict_rows": "denoiser",
    "read_embeddings": "conditioning.embeddings",
    "read_image": "user_image",
    "read_settings": "png",
    "read_texts": "picture_texts",
    "recipe_published": "recipes",
    "resolve_engine": "model",
    "reused": "reuse",
    "webui_text": "png",
    "zero_residuals": "conditioning.residuals",
}


def __getattr__(name: str) -> object:
    room = _ROOMS.get(name)
    if room is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(f"{__name__}.{room}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
