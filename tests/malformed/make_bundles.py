"""Write ``bundles``: ``valid`` and ``version_N`` are sound; every other folder has one thing wrong with it.

    python tests/malformed/make_bundles.py

Kept in the repository as files, so that a change of the writer cannot quietly change what the reader is
tested on.
"""

from __future__ import annotations

import copy
import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent / "bundles"
SCHEDULER = '{"_class_name": "PNDMScheduler", "num_train_timesteps": 1000}\n'
PACKAGE = '{"fileFormatVersion": "1.0.0"}\n'

Manifest = dict[str, Any]


def _record(text: str) -> dict[str, Any]:
    return {"size": len(text), "sha256": hashlib.sha256(text.encode()).hexdigest()}


def _port(name: str, shape: list[int], dtype: str) -> dict[str, Any]:
    return {"name": name, "shape": shape, "dtype": dtype}


BASE: Manifest = {
    "format": "sd-bundle",
    "version": 3,
    "model": {
        "identifier": "org/tiny",
        "family": "sd1",
        "task": "text-to-image",
        "denoiser": {"architecture": "unet", "distillation": None},
        "prediction_type": "epsilon",
        "scheduler": "scheduler/scheduler_config.json",
        "sizes": [
            {"image": {"height": 64, "width": 64}, "latent": {"channels": 4, "height": 8, "width": 8}},
        ],
        "vae": {"scaling_factor": 0.18215, "shift_factor": 0.0, "encodes": "moments"},
        "text_encoders": [],
        "conditioning": {"time_ids": "none", "zero_empty_negative": False, "guidance_embedding": False},
        "recipe": None,
    },
    "components": [
        {
            "name": "unet",
            "role": "denoiser",
            "variants": [
                {
                    "size": {"height": 64, "width": 64},
                    "chunks": [
                        {
                            "package": "tiny_unet.mlpackage",
                            "function": None,
                            "inputs": [_port("sample", [2, 4, 8, 8], "float16")],
                            "outputs": [_port("noise_pred", [2, 4, 8, 8], "float32")],
                        }
                    ],
                }
            ],
            "attention_implementation": "ORIGINAL",
            "compression": None,
            "compute_unit": "CPU_AND_GPU",
            "deployment_target": "macOS13",
        }
    ],
    "provenance": {
        "source": "org/tiny",
        "revision": None,
        "tools": {},
        "created": "2026-01-31T12:00:00Z",
        "weights": {"files": {}, "loras": [], "embeddings": [], "vae": None},
    },
    "files": {
        "scheduler/scheduler_config.json": _record(SCHEDULER),
        "tiny_unet.mlpackage/Manifest.json": _record(PACKAGE),
    },
}

#: The same as it was written before there was a version 3.
VERSION_2: Manifest = copy.deepcopy(BASE)
VERSION_2["version"] = 2
del VERSION_2["model"]["recipe"]

#: And before there was a version 2.
VERSION_1: Manifest = {
    "format": "sd-bundle",
    "version": 1,
    "model": {
        "identifier": "org/tiny",
        "family": "sd1",
        "task": "text-to-image",
        "prediction_type": "epsilon",
        "scheduler": "scheduler/scheduler_config.json",
        "latent": {"channels": 4, "height": 8, "width": 8},
        "image": {"height": 64, "width": 64},
        "vae": {"scaling_factor": 0.18215, "shift_factor": 0.0, "encodes": "moments"},
        "text_encoders": [],
        "conditioning": {"time_ids": "none", "zero_empty_negative": False, "guidance_embedding": False},
    },
    "components": [
        {
            "name": "unet",
            "role": "denoiser",
            "package": "tiny_unet.mlpackage",
            "inputs": [_port("sample", [2, 4, 8, 8], "float16")],
            "outputs": [_port("noise_pred", [2, 4, 8, 8], "float32")],
            "attention_implementation": "ORIGINAL",
            "compute_unit": "CPU_AND_GPU",
            "deployment_target": "macOS13",
        }
    ],
    "compression": "none",
    "provenance": {"source": "org/tiny", "revision": None, "tools": {}, "created": "2026-01-31T12:00:00Z"},
    "files": {
        "scheduler/scheduler_config.json": _record(SCHEDULER),
        "tiny_unet.mlpackage/Manifest.json": _record(PACKAGE),
    },
}


def _write(case: str, text: str) -> Path:
    folder = HERE / case
    (folder / "scheduler").mkdir(parents=True)
    (folder / "tiny_unet.mlpackage").mkdir()
    (folder / "scheduler/scheduler_config.json").write_text(SCHEDULER)
    (folder / "tiny_unet.mlpackage/Manifest.json").write_text(PACKAGE)
    (folder / "manifest.json").write_text(text)
    return folder


def _edited(edit: Callable[[Manifest], object], base: Manifest = BASE) -> str:
    manifest = copy.deepcopy(base)
    edit(manifest)
    return json.dumps(manifest, indent=1) + "\n"


def _listing(path: str) -> str:
    return _edited(lambda m: m["files"].update({path: _record(SCHEDULER)}))


def _size(manifest: Manifest) -> dict[str, Any]:
    size: dict[str, Any] = manifest["model"]["sizes"][0]
    return size


def _chunk(manifest: Manifest) -> dict[str, Any]:
    chunk: dict[str, Any] = manifest["components"][0]["variants"][0]["chunks"][0]
    return chunk


def _with_a_form(manifest: Manifest, batch: int) -> None:
    """The denoiser once more for the same size, for so many samples."""
    (variant,) = manifest["components"][0]["variants"]
    other = copy.deepcopy(variant)
    for side in ("inputs", "outputs"):
        other["chunks"][0][side][0]["shape"][0] = batch
    other["chunks"][0]["function"] = "other"
    manifest["components"][0]["variants"].append(other)


def _weights(manifest: Manifest) -> dict[str, Any]:
    weights: dict[str, Any] = manifest["provenance"]["weights"]
    return weights


def _file(name: str = "a.safetensors", size: int = 1, sha256: str | None = "0" * 64) -> dict[str, Any]:
    return {"name": name, "size": size, "sha256": sha256}


def _in_chunks(manifest: Manifest, taken: dict[str, Any], returned: dict[str, Any]) -> None:
    """The denoiser in two chunks: the first returns ``hidden``, the second takes and returns these."""
    second = copy.deepcopy(_chunk(manifest)) | {"inputs": [taken], "outputs": [returned]}
    second["function"] = "second"
    _chunk(manifest)["outputs"] = [_port("hidden", [2, 8, 8, 8], "float16")]
    manifest["components"][0]["variants"][0]["chunks"].append(second)


def _with_a_text_encoder(manifest: Manifest) -> None:
    ports = {"inputs": [], "outputs": [_port("last_hidden_state", [1, 77, 8], "float32")]}
    variant = {"size": None, "chunks": [_chunk(manifest) | ports]}
    encoder = manifest["components"][0] | {"name": "text_encoder", "role": "text_encoder"}
    encoder["variants"] = [variant]
    manifest["components"].append(encoder)
    encoding = {"component": "text_encoder", "tokenizer": "scheduler", "hidden_states": "hidden_embeds"}
    manifest["model"]["text_encoders"].append(encoding)


def _with_five_time_ids(manifest: Manifest) -> None:
    ports = [_port("time_ids", [2, 5], "float16"), _port("text_embeds", [2, 8], "float16")]
    _chunk(manifest)["inputs"] += ports
    manifest["model"]["conditioning"]["time_ids"] = "size"


SOUND = _edited(lambda _: None)

TEXTS: dict[str, str] = {
    "valid": SOUND,
    "unknown_field": _edited(lambda m: m["model"].update(clip_skip=2)),
    "missing_field": _edited(lambda m: m["components"][0].pop("role")),
    "wrong_type": _edited(lambda m: _size(m)["latent"].update(height="8")),
    "boolean_as_integer": _edited(lambda m: _size(m)["latent"].update(height=True)),
    "unknown_role": _edited(lambda m: m["components"][0].update(role="upscaler")),
    "wrong_format": _edited(lambda m: m.update(format="something-else")),
    "later_version": _edited(lambda m: m.update(version=4, novelty="unknown here")),
    "version_as_float": _edited(lambda m: m.update(version=3.0)),
    "not_an_object": "[]\n",
    "empty_manifest": "",
    "truncated_json": SOUND[: len(SOUND) // 2],
    "duplicate_keys": SOUND.replace('"version": 3,', '"version": 3, "version": 3,'),
    "not_a_number": SOUND.replace("0.18215", "NaN"),
    "infinite_number": SOUND.replace("0.18215", "1e999"),
    "huge_integer": SOUND.replace('"height": 64', '"height": ' + "9" * 5_000),
    "deep_nesting": "[" * 20_000,
    "negative_size": _edited(lambda m: _size(m)["image"].update(width=-64)),
    "huge_shape": _edited(lambda m: _chunk(m)["outputs"][0].update(shape=[2**30, 2**30])),
    "zero_scaling_factor": _edited(lambda m: m["model"]["vae"].update(scaling_factor=0.0)),
    "absolute_path": _listing("/etc/hostname"),
    "parent_path": _listing("../valid/scheduler/scheduler_config.json"),
    "backslash_path": _listing("scheduler\\scheduler_config.json"),
    "drive_path": _listing("C:/scheduler_config.json"),
    "dot_path": _listing("scheduler/./scheduler_config.json"),
    "paths_that_differ_in_case": _listing("scheduler/Scheduler_Config.json"),
    "package_outside": _edited(lambda m: _chunk(m).update(package="../valid/tiny_unet.mlpackage")),
    "package_unlisted": _edited(lambda m: _chunk(m).update(package="other.mlpackage")),
    "scheduler_unlisted": _edited(lambda m: m["model"].update(scheduler="scheduler/other.json")),
    "machine_path_as_source": _edited(lambda m: m["provenance"].update(source="/models/tiny")),
    "bad_sha256": _edited(lambda m: next(iter(m["files"].values())).update(sha256="0" * 63)),
    "two_components_of_one_name": _edited(lambda m: m["components"].append(m["components"][0])),
    "latent_contradicts_ports": _edited(lambda m: _size(m)["latent"].update(height=16)),
    "text_encoder_unknown": _edited(
        lambda m: m["model"]["text_encoders"].append(
            {"component": "text_encoder", "tokenizer": "scheduler", "hidden_states": "hidden_embeds"}
        )
    ),
    "hidden_states_not_an_output": _edited(_with_a_text_encoder),
    "unknown_task": _edited(lambda m: m["model"].update(task="outpainting")),
    "task_contradicts_channels": _edited(lambda m: m["model"].update(task="inpainting")),
    "time_ids_without_a_port": _edited(lambda m: m["model"]["conditioning"].update(time_ids="size")),
    "time_ids_of_another_length": _edited(_with_five_time_ids),
    "time_ids_without_meaning": _edited(
        lambda m: _chunk(m)["inputs"].append(_port("time_ids", [2, 6], "float16"))
    ),
    "guidance_embedding_without_a_port": _edited(
        lambda m: m["model"]["conditioning"].update(guidance_embedding=True)
    ),
    "no_sizes": _edited(lambda m: m["model"].update(sizes=[])),
    "two_sizes_alike": _edited(lambda m: m["model"]["sizes"].append(_size(m))),
    "sizes_of_two_models": _edited(
        lambda m: m["model"]["sizes"].append(
            {"image": {"height": 32, "width": 32}, "latent": {"channels": 16, "height": 4, "width": 4}}
        )
    ),
    "latent_of_no_array": _edited(lambda m: _size(m)["latent"].update(height=2**20, width=2**20)),
    "unknown_denoiser": _edited(lambda m: m["model"]["denoiser"].update(architecture="transformer")),
    "no_variant": _edited(lambda m: m["components"][0].update(variants=[])),
    "no_chunk": _edited(lambda m: m["components"][0]["variants"][0].update(chunks=[])),
    "denoiser_of_no_size": _edited(lambda m: m["components"][0]["variants"][0].update(size=None)),
    "denoiser_of_another_size": _edited(
        lambda m: m["components"][0]["variants"][0].update(size={"height": 32, "width": 64})
    ),
    "two_variants_of_one_size": _edited(
        lambda m: m["components"][0]["variants"].append(m["components"][0]["variants"][0])
    ),
    "two_variants_of_one_form": _edited(lambda m: _with_a_form(m, 2)),
    "recipe_without_a_name": _edited(lambda m: m["model"].update(recipe="")),
    "one_chunk_twice": _edited(
        lambda m: m["components"][0]["variants"][0]["chunks"].append(copy.deepcopy(_chunk(m)))
    ),
    "chunks_that_do_not_fit": _edited(
        lambda m: _in_chunks(
            m, _port("hidden", [2, 4, 8, 8], "float16"), _port("noise_pred", [2, 4, 8, 8], "float32")
        )
    ),
    "chunks_that_return_one_name": _edited(
        lambda m: _in_chunks(m, _port("hidden", [2, 8, 8, 8], "float16"), _port("sample", [2], "float32"))
    ),
    "unknown_compression": _edited(
        lambda m: m["components"][0].update(
            compression={"methods": ["zip"], "bits_per_weight": 4, "recipe": None}
        )
    ),
    "compression_by_nothing": _edited(
        lambda m: m["components"][0].update(compression={"methods": [], "bits_per_weight": 4, "recipe": None})
    ),
    "bits_per_weight_of_none": _edited(
        lambda m: m["components"][0].update(
            compression={"methods": ["pruning"], "bits_per_weight": 0, "recipe": None}
        )
    ),
    "recipe_unlisted": _edited(
        lambda m: m["components"][0].update(
            compression={"methods": ["palettization"], "bits_per_weight": 4.5, "recipe": "recipe.json"}
        )
    ),
    "lora_without_sha256": _edited(
        lambda m: _weights(m)["loras"].append({"file": _file(sha256=None), "scale": 1, "text_scale": 1})
    ),
    "lora_from_a_machine": _edited(
        lambda m: _weights(m)["loras"].append({"file": _file("/a/b"), "scale": 1, "text_scale": 1})
    ),
    "two_embeddings_of_one_token": _edited(
        lambda m: _weights(m)["embeddings"].extend([{"token": "style", "file": _file()}] * 2)
    ),
    "vae_without_files": _edited(lambda m: _weights(m).update(vae={"source": "org/vae", "files": []})),
    "weight_file_of_negative_size": _edited(
        lambda m: _weights(m)["files"].update(unet=[_file(size=-1, sha256=None)])
    ),
    "version_1": _edited(lambda _: None, VERSION_1),
    "version_1_with_a_field_of_version_2": _edited(
        lambda m: m["model"].update(denoiser=BASE["model"]["denoiser"]), VERSION_1
    ),
    "version_1_without_a_field": _edited(lambda m: m.pop("compression"), VERSION_1),
    "version_1_latent_contradicts_ports": _edited(
        lambda m: m["model"]["latent"].update(height=16), VERSION_1
    ),
    "version_1_package_unlisted": _edited(
        lambda m: m["components"][0].update(package="other.mlpackage"), VERSION_1
    ),
    "version_2": _edited(lambda _: None, VERSION_2),
    "version_2_with_a_field_of_version_1": _edited(lambda m: m.update(compression="none"), VERSION_2),
    "version_2_with_a_field_of_version_3": _edited(lambda m: m["model"].update(recipe=None), VERSION_2),
    "version_2_with_two_forms": _edited(lambda m: _with_a_form(m, 1), VERSION_2),
    "missing_file": _listing("scheduler/more.json"),
    "file_is_a_folder": _listing("empty"),
    "wrong_size": _edited(lambda m: next(iter(m["files"].values())).update(size=1)),
    "link_out": _listing("scheduler/linked.json"),
    "wrong_content": SOUND,
}


def main() -> None:
    """Write every case anew."""
    shutil.rmtree(HERE, ignore_errors=True)
    for case, text in TEXTS.items():
        _write(case, text)
    (HERE / "missing_manifest").mkdir()
    (HERE / "missing_manifest" / "README").write_text("This folder has no manifest.json.\n")
    (HERE / "not_utf8").mkdir()
    (HERE / "not_utf8" / "manifest.json").write_bytes(b'{"format": "\xff"}\n')
    (HERE / "file_is_a_folder" / "empty").mkdir()
    (HERE / "file_is_a_folder" / "empty" / "README").write_text("A folder where a file is listed.\n")
    (HERE / "link_out" / "scheduler/linked.json").symlink_to("../../valid/scheduler/scheduler_config.json")
    (HERE / "wrong_content" / "scheduler/scheduler_config.json").write_text(SCHEDULER.replace("1000", "1001"))


if __name__ == "__main__":
    main()
