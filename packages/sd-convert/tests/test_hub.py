"""Fetching from a hub that runs in this process: what is asked of it, and what is said when it fails."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from sd_convert import (
    CheckpointNotFoundError,
    IncompleteCheckpointError,
    NotACheckpointError,
    UnsupportedArchitectureError,
    open_checkpoint,
)
from sd_convert.checkpoint.quiet_hub import without_telemetry

COMMIT = "0" * 40


class Hub(BaseHTTPRequestHandler):
    """The two calls of the hub's API that a download needs, for the one repository ``org/tiny``."""

    server: HubServer

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def _answer(self, *, with_body: bool) -> None:
        path = self.path.split("?")[0]
        self.server.asked.append((path, self.headers["User-Agent"]))
        if path.startswith("/api/models/org/tiny"):
            self._send(json.dumps(self._api(path)).encode(), "application/json", with_body)
        elif path.startswith("/org/tiny/resolve/"):
            relative = path.split("/", 5)[5]
            if with_body:
                self.server.fetched.append(relative)
            self._send((self.server.folder / relative).read_bytes(), "application/octet-stream", with_body)
        else:
            self.send_response(404)
            self.send_header("X-Error-Code", "RepoNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()

    def _api(self, path: str) -> Any:
        files = [file for file in self.server.folder.rglob("*") if file.is_file()]
        names = sorted(
            (file.relative_to(self.server.folder).as_posix(), file.stat().st_size) for file in files
        )
        if "/tree/" in path:
            return [{"type": "file", "path": name, "size": size, "oid": "0"} for name, size in names]
        return {"id": "org/tiny", "sha": COMMIT, "siblings": [{"rfilename": name} for name, _ in names]}

    def _send(self, body: bytes, kind: str, with_body: bool) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", f'"{hashlib.sha256(body).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        if with_body:
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


class HubServer(ThreadingHTTPServer):
    folder: Path
    fetched: list[str]
    asked: list[tuple[str, str]]


@pytest.fixture
def hub(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """``org/tiny`` on a local hub, with more in it than anybody asks for."""
    for extra in (
        "safety_checker/model.fp16.safetensors",
        "unet/diffusion_pytorch_model.bin",
        "v1-5-pruned.ckpt",
    ):
        (tiny / extra).parent.mkdir(exist_ok=True)
        (tiny / extra).write_bytes(b"large")
    fp16 = tiny / "unet/diffusion_pytorch_model.fp16.safetensors"
    (tiny / "unet/diffusion_pytorch_model.safetensors").write_bytes(fp16.read_bytes())
    server = HubServer(("127.0.0.1", 0), Hub)
    server.folder, server.fetched, server.asked = tiny, [], []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    endpoint = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", endpoint)
    monkeypatch.setattr(
        huggingface_hub.constants,
        "HUGGINGFACE_CO_URL_TEMPLATE",
        endpoint + "/{repo_id}/resolve/{revision}/{filename}",
    )
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    yield server
    server.shutdown()
    server.server_close()


SMALL = {
    "model_index.json",
    "scheduler/scheduler_config.json",
    "text_encoder/config.json",
    "tokenizer/merges.txt",
    "tokenizer/tokenizer_config.json",
    "tokenizer/vocab.json",
    "unet/config.json",
    "vae/config.json",
}


@pytest.mark.parametrize(
    ("components", "weights"),
    [
        (["unet"], {"unet/diffusion_pytorch_model.fp16.safetensors"}),
        (
            None,
            {
                "text_encoder/model.fp16.safetensors",
                "unet/diffusion_pytorch_model.fp16.safetensors",
                "vae/diffusion_pytorch_model.fp16.safetensors",
            },
        ),
    ],
)
def test_only_the_asked_components_and_one_variant_are_fetched(
    components: list[str] | None, weights: set[str], hub: HubServer, tmp_path: Path
) -> None:
    checkpoint = open_checkpoint("org/tiny", components=components, cache_dir=tmp_path / "cache")
    assert sorted(hub.fetched) == sorted(SMALL | weights)
    assert (checkpoint.name, checkpoint.revision) == ("org/tiny", COMMIT)
    assert len(checkpoint.weights("unet")) > 0


def test_a_variant_by_name(hub: HubServer, tmp_path: Path) -> None:
    open_checkpoint("org/tiny", components=["unet"], variant="", cache_dir=tmp_path / "cache")
    assert [file for file in hub.fetched if file.endswith(".safetensors")] == [
        "unet/diffusion_pytorch_model.safetensors"
    ]


def test_what_was_fetched_is_enough_offline(
    hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    open_checkpoint("org/tiny", components=["unet"], cache_dir=cache)
    hub.fetched.clear()
    again = open_checkpoint("org/tiny", components=["unet"], cache_dir=cache, local_files_only=True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert open_checkpoint("org/tiny", components=["unet"], cache_dir=cache) == again
    assert hub.fetched == []


def test_offline_without_a_cache(tmp_path: Path) -> None:
    with pytest.raises(CheckpointNotFoundError, match=r"org/tiny: .*\(offline\)") as caught:
        open_checkpoint("org/tiny", cache_dir=tmp_path / "cache", local_files_only=True)
    assert "\n" not in str(caught.value)


def test_a_repository_that_does_not_exist(hub: HubServer, tmp_path: Path) -> None:
    with pytest.raises(
        CheckpointNotFoundError, match="org/other: expected a folder of that name or a repository"
    ):
        open_checkpoint("org/other", cache_dir=tmp_path / "cache")


def test_a_hub_that_cannot_be_reached(hub: HubServer, tmp_path: Path) -> None:
    hub.shutdown()
    hub.server_close()
    with pytest.raises(CheckpointNotFoundError, match="on the hub, got neither"):
        open_checkpoint("org/tiny", cache_dir=tmp_path / "cache")


def test_a_repository_without_a_checkpoint(hub: HubServer, tmp_path: Path) -> None:
    (hub.folder / "model_index.json").unlink()
    with pytest.raises(NotACheckpointError, match=r"model_index\.json"):
        open_checkpoint("org/tiny", cache_dir=tmp_path / "cache")
    assert hub.fetched == []


def test_another_family_is_refused_before_its_weights_are_fetched(hub: HubServer, tmp_path: Path) -> None:
    index = json.loads((hub.folder / "model_index.json").read_text())
    (hub.folder / "model_index.json").write_text(json.dumps(index | {"_class_name": "FluxPipeline"}))
    with pytest.raises(UnsupportedArchitectureError, match="FluxPipeline"):
        open_checkpoint("org/tiny", cache_dir=tmp_path / "cache")
    assert not [file for file in hub.fetched if file.endswith(".safetensors")]


def test_a_single_file_on_the_hub(hub: HubServer, tmp_path: Path) -> None:
    with pytest.raises(IncompleteCheckpointError, match=r"nothing\.safetensors: expected a weights file"):
        open_checkpoint("org/tiny/nothing.safetensors", cache_dir=tmp_path)
    with pytest.raises(NotACheckpointError, match="diffusers' layout"):
        open_checkpoint(
            "org/tiny/unet/diffusion_pytorch_model.fp16.safetensors", cache_dir=tmp_path, components=["unet"]
        )
    assert hub.fetched == ["unet/diffusion_pytorch_model.fp16.safetensors"]


def test_the_hub_is_asked_for_the_repository_and_told_nothing_else(
    hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    constants, home = huggingface_hub.constants, tmp_path / "home"
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_TELEMETRY", False)
    monkeypatch.setattr(constants, "AGENT_HARNESSES_PATH", str(home / "agents.json"), raising=False)
    monkeypatch.setenv("AI_AGENT", "somebody")
    open_checkpoint("org/tiny", components=["unet"], cache_dir=tmp_path / "cache")
    assert all(path.startswith(("/api/models/org/tiny", "/org/tiny/resolve/")) for path, _ in hub.asked)
    for _, told in hub.asked:
        assert told.startswith("sd-convert/")
        assert {part.split("/")[0].strip() for part in told.split(";")} <= {"sd-convert", "hf_hub", "python"}
    assert not home.exists()
    assert constants.HF_HUB_DISABLE_TELEMETRY is False  # whoever wants it has it as before


@pytest.mark.parametrize("chosen", [False, True])
def test_telemetry_is_off_until_the_last_of_several_downloads_ends(
    chosen: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    constants = huggingface_hub.constants
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_TELEMETRY", chosen)
    first, second = without_telemetry(), without_telemetry()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert constants.HF_HUB_DISABLE_TELEMETRY is True
    second.__exit__(None, None, None)
    assert constants.HF_HUB_DISABLE_TELEMETRY is chosen
