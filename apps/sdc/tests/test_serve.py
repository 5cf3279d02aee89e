"""The server's answers without a socket; one test with a socket, and Ctrl-C."""

from __future__ import annotations

import base64
import http.client
import io
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sd_runtime import Pipeline, read_settings
from sdc.commands.serve import open_studio
from sdc.serve.app import App
from sdc.serve.gallery import Gallery
from sdc.serve.guard import LARGEST, hosts
from sdc.serve.http import Server
from sdc.serve.messages import Answer, Asked
from sdc.serve.studio import Studio

PROMPT = "a red circle on a blue background"
WEIGHTED = "a (red:1.3) circle on a blue background"
HOST = {"host": "127.0.0.1:7860"}
JSON = {**HOST, "content-type": "application/json"}


@pytest.fixture(scope="module")
def studio(converted: Path) -> Studio:
    return open_studio(converted, engine="portable")


@pytest.fixture
def app(studio: Studio, tmp_path: Path) -> App:
    return App(studio, Gallery(tmp_path / "gallery"), hosts(7860))


def got(app: App, path: str, **headers: str) -> Answer:
    return app.answer(Asked("GET", path, {**HOST, **headers}))


def posted(app: App, name: str, fields: Any, **headers: str) -> Answer:
    body = fields if isinstance(fields, bytes) else json.dumps(fields).encode()
    return app.answer(Asked("POST", f"/sdapi/v1/{name}", {**JSON, **headers}, body))


def picture(text: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(text)))


def encoded(image: Image.Image) -> str:
    content = io.BytesIO()
    image.save(content, format="PNG")
    return base64.b64encode(content.getvalue()).decode()


def test_txt2img_draws_what_the_library_draws(app: App) -> None:
    fields = {
        "prompt": WEIGHTED,
        "seed": 7,
        "steps": 2,
        "cfg_scale": 3,
        "width": 128,
        "height": 128,
        "sampler_name": "Euler",
        "scheduler": "Karras",
        "batch_size": 2,
        "enable_hr": False,
        "hr_scale": 2,
        "tiling": False,
        "styles": [],
        "subseed": -1,
        "subseed_strength": 0,
        "override_settings": {"randn_source": "CPU"},
        "alwayson_scripts": {},
    }
    answer = posted(app, "txt2img", fields)
    assert answer.status == 200, answer.body
    found = json.loads(answer.body)
    pipeline = app.studio._pipeline  # whose networks are loaded by now
    assert isinstance(pipeline, Pipeline)
    expected = pipeline.generate(
        WEIGHTED,
        image_count=2,
        seed=7,
        num_inference_steps=2,
        guidance_scale=3,
        scheduler="euler",
        spacing="karras",
        rng="torch",
        prompt_syntax="a1111",
    )
    for text, drawn in zip(found["images"], expected, strict=True):
        np.testing.assert_array_equal(np.asarray(picture(text)), np.asarray(drawn.image))
        assert picture(text).info["parameters"].startswith(WEIGHTED)
    info = json.loads(found["info"])
    assert (info["all_seeds"], info["sampler_name"], info["interrupted"]) == ([7, 8], "Euler", False)
    names = [each["name"] for each in json.loads(got(app, "/gallery").body)]
    assert sorted(names) == info["files"] == ["00001-7.png", "00002-8.png"]
    assert read_settings(app.gallery.folder / names[0]).seed == 8
    assert got(app, f"/gallery/{names[0]}").body.startswith(b"\x89PNG")
    assert json.loads(posted(app, "png-info", {"image": found["images"][0]}).body)["info"].startswith(
        WEIGHTED
    )


def test_variations_count_the_other_seed_up(app: App) -> None:
    fields = {"prompt": PROMPT, "seed": 7, "steps": 1, "subseed": 40, "subseed_strength": 0.25, "n_iter": 2}
    answer = posted(app, "txt2img", fields)
    assert answer.status == 200, answer.body
    info = json.loads(json.loads(answer.body)["info"])
    assert (info["all_seeds"], info["all_subseeds"], info["subseed_strength"]) == ([7, 7], [40, 41], 0.25)
    assert all("Variation seed strength: 0.25" in each for each in info["infotexts"])
    pipeline = app.studio._pipeline
    assert isinstance(pipeline, Pipeline)
    (expected,) = pipeline.generate(
        PROMPT,
        seed=7,
        num_inference_steps=1,
        variation_seed=41,
        variation_strength=0.25,
        prompt_syntax="a1111",
    )
    drawn = picture(json.loads(answer.body)["images"][1])
    np.testing.assert_array_equal(np.asarray(drawn), np.asarray(expected.image))


def test_img2img_starts_from_the_picture(app: App) -> None:
    start = encoded(Image.new("RGB", (128, 128), "green"))
    fields = {"prompt": PROMPT, "init_images": [start], "steps": 4, "seed": 1, "mask_blur": 4}
    first, second = (
        json.loads(posted(app, "img2img", {**fields, "denoising_strength": strength}).body)
        for strength in (0.25, 1.0)
    )
    assert json.loads(first["info"])["denoising_strength"] == 0.25
    assert first["images"] != second["images"]
    assert "init_images" not in first["parameters"]


def test_img2img_paints_what_is_masked_as_the_web_ui_does(app: App) -> None:
    """Left out, its defaults: filled, blurred by 4, the masked part alone. What is clear is not masked."""
    noise = np.random.default_rng(1).integers(0, 256, (150, 200, 3), np.uint8)
    start, mask = Image.fromarray(noise), Image.new("RGBA", (200, 150))
    mask.paste((0, 0, 0, 255), (120, 40, 150, 60))
    fields = {"prompt": PROMPT, "init_images": [encoded(start)], "mask": encoded(mask), "steps": 2, "seed": 1}
    fields |= {"denoising_strength": 0.5, "override_settings": {"randn_source": "CPU"}}
    grey = Image.new("L", (200, 150))
    grey.paste(255, (120, 40, 150, 60))
    whole = {"inpaint_full_res": False, "mask_blur": 0, "inpainting_fill": 3, "inpainting_mask_invert": 1}
    turned = Image.eval(grey, lambda value: 255 - value)
    for stated, options in (
        ({}, {"mask": grey, "mask_blur": 4, "mask_content": "fill", "padding_mask_crop": 0}),
        (whole, {"mask": turned, "mask_blur": 0, "mask_content": "latent_nothing"}),
    ):
        answer = posted(app, "img2img", {**fields, **stated})
        assert answer.status == 200, answer.body
        found = json.loads(answer.body)
        pipeline = app.studio._pipeline
        assert isinstance(pipeline, Pipeline)
        (expected,) = pipeline.generate(
            PROMPT,
            seed=1,
            rng="torch",
            num_inference_steps=2,
            strength=0.5,
            image=start,
            prompt_syntax="a1111",
            **options,
        )
        drawn = picture(found["images"][0])
        assert drawn.size == ((128, 128) if stated else (200, 150))
        np.testing.assert_array_equal(np.asarray(drawn), np.asarray(expected.image))
        assert "mask" not in found["parameters"]
    assert "Mask blur: 0, Masked content: latent nothing" in json.loads(found["info"])["infotexts"][0]


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"enable_hr": True, "hr_upscaler": "ESRGAN_4x"}, "hr_upscaler"),
        ({"tiling": True}, "tiling"),
        ({"styles": ["photo"]}, "styles"),
        ({"subseed": "5", "subseed_strength": 0.2}, "subseed"),
        ({"subseed": 5, "subseed_strength": True}, "subseed_strength"),
        ({"s_churn": 1.5}, "s_churn"),
        ({"no_such_field": 1}, "no_such_field"),
        ({"sampler_name": "Restart"}, "sampler_name"),
        ({"sampler_name": "Euler", "scheduler": "KL Optimal"}, "scheduler"),
        ({"width": 512}, "width"),
        ({"steps": "20"}, "steps"),
        ({"steps": True}, "steps"),
        ({"prompt": 5}, "prompt"),
        ({"batch_size": 65}, "batch_size"),
        ({"n_iter": 0}, "n_iter"),
        ({"override_settings": {"sd_model_checkpoint": "other"}}, "override_settings.sd_model_checkpoint"),
        (
            {"override_settings": {"CLIP_stop_at_last_layers": 2}},
            "override_settings.CLIP_stop_at_last_layers",
        ),
    ],
)
def test_what_is_not_honoured_is_refused_by_name(app: App, fields: Any, field: str) -> None:
    answer = posted(app, "txt2img", {"prompt": "a", **fields})
    assert answer.status == 422, answer.body
    assert json.loads(answer.body)["field"] == field
    assert not app.gallery.folder.exists()


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({}, "init_images"),
        ({"init_images": ["@"]}, "init_images"),
        ({"init_images": [base64.b64encode(b"no picture").decode()]}, "init_images"),
        ({"init_images": ["PICTURE"], "mask": "PICTURE", "mask_blur_x": 4, "mask_blur_y": 2}, "mask_blur_y"),
        ({"init_images": ["PICTURE"], "mask": "PICTURE", "mask_blur": "4"}, "mask_blur"),
        ({"init_images": ["PICTURE"], "mask": "PICTURE", "inpainting_fill": 4}, "inpainting_fill"),
        ({"init_images": ["PICTURE"], "mask": "PICTURE", "inpaint_full_res": 2}, "inpaint_full_res"),
        (
            {"init_images": ["PICTURE"], "mask": "PICTURE", "inpainting_mask_invert": 2},
            "inpainting_mask_invert",
        ),
        ({"init_images": ["PICTURE"], "mask": "PICTURE", "mask_round": False}, "mask_round"),
        ({"init_images": ["PICTURE"], "latent_mask": "PICTURE", "mask": "PICTURE"}, "latent_mask"),
        ({"init_images": ["PICTURE"], "resize_mode": 1}, "resize_mode"),
    ],
)
def test_pictures_that_are_none(app: App, fields: Any, field: str) -> None:
    text = json.dumps(fields).replace("PICTURE", encoded(Image.new("RGB", (8, 8))))
    answer = posted(app, "img2img", text.encode())
    assert (answer.status, json.loads(answer.body)["field"]) == (422, field)


def test_settings_that_make_no_sense(app: App) -> None:
    answer = posted(app, "txt2img", {"prompt": "a", "steps": 0})
    assert answer.status == 422
    assert "num_inference_steps of at least 1" in json.loads(answer.body)["detail"]


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b"{", {}, 400),
        (b"[]", {}, 400),
        (b'{"a": NaN}', {}, 400),
        (b"[" * 100_000, {}, 400),
        (b"\xff", {}, 400),
        (b"{}", {"content-type": "text/plain"}, 415),
        (b"{}", {"host": "evil.example:7860"}, 403),
        (b"{}", {"host": "127.0.0.1:80"}, 403),
        (b"{}", {"origin": "http://evil.example"}, 403),
        (b"{}", {"origin": "null"}, 403),
        (b"{}", {"origin": "https://127.0.0.1:7860"}, 403),
        (b"{}", {"sec-fetch-site": "cross-site"}, 403),
        (b"{}", {"origin": "http://localhost:7860", "host": "LOCALHOST:7860"}, 200),
    ],
)
def test_who_may_ask_and_how(app: App, body: bytes, headers: dict[str, str], status: int) -> None:
    assert posted(app, "interrupt", body, **headers).status == status


@pytest.mark.parametrize(
    "path",
    [
        "/gallery/../secret.png",
        "/gallery/%2e%2e%2fsecret.png",
        "/gallery/..%5csecret.png",
        "/gallery//etc/passwd",
        "/gallery/.hidden.png",
        "/gallery/link.png",
        "/gallery/notes.txt",
        "/gallery/%00.png",
        "/gallery/",
        "/page.py",
        "/sdapi/v1/txt2img",
        "/sdapi/v1/../../page.html",
        "//[",
    ],
)
def test_nothing_but_pictures_leaves_the_folder(app: App, path: str) -> None:
    folder = app.gallery.folder
    folder.mkdir()
    for target in (folder.parent / "secret.png", folder / ".hidden.png", folder / "notes.txt"):
        target.write_bytes(b"secret")
    (folder / "link.png").symlink_to(folder.parent / "secret.png")
    answer = got(app, path)
    assert answer.status in (400, 404)
    assert b"secret" not in answer.body.replace(b"secret.png", b"")
    assert json.loads(got(app, "/gallery").body) == []


def test_what_clients_ask_for_first(app: App) -> None:
    def found(name: str) -> Any:
        answer = got(app, f"/sdapi/v1/{name}")
        assert answer.status == 200
        return json.loads(answer.body)

    assert {"Euler a", "DPM++ 2M", "DDIM", "deis"} <= {each["name"] for each in found("samplers")}
    assert {"Automatic", "Karras", "SGM Uniform"} <= {each["label"] for each in found("schedulers")}
    (model,) = found("sd-models")
    assert found("options")["sd_model_checkpoint"] == model["title"] == "checkpoint"
    assert found("loras") == found("hypernetworks") == []
    assert [each["name"] for each in found("upscalers") + found("latent-upscale-modes")] == [
        "Lanczos",
        "Latent",
    ]
    assert found("progress?skip_current_image=true")["state"]["job_count"] == 0
    assert posted(app, "options", {"sd_model_checkpoint": "checkpoint"}).status == 200
    assert json.loads(posted(app, "options", {"samples_format": "jpg"}).body)["field"] == "samples_format"


def test_every_name_of_a_sampler_that_is_listed_can_be_asked_for() -> None:
    from sdc.serve.webui_api import samplers, schedule_types
    from sdc.serve.webui_fields import _sampling

    for each in samplers():
        assert _sampling({"sampler_name": each["name"]})["scheduler"] == each["aliases"][0]
    for each in schedule_types():
        assert _sampling({"scheduler": each["label"]}) == _sampling({"scheduler": each["name"]})


def test_one_after_the_other_with_progress_and_interrupted(app: App) -> None:
    """While one is at work, it says how far it is; the interrupt ends it, not the one that waits."""
    answers: dict[str, Answer] = {}

    def ask(name: str, steps: int) -> threading.Thread:
        def run() -> None:
            answers[name] = posted(app, "txt2img", {"prompt": PROMPT, "steps": steps, "seed": 3})

        thread = threading.Thread(target=run)
        thread.start()
        return thread

    def wait_for(condition: Callable[[], bool]) -> None:
        for _ in range(3000):
            if condition():
                return
            threading.Event().wait(0.01)
        raise AssertionError("it never came to that")

    first = ask("first", 500)
    wait_for(lambda: app.studio.progress.done > 1)
    second = ask("second", 2)
    now = json.loads(got(app, "/sdapi/v1/progress").body)
    assert 0 < now["progress"] < 1
    assert now["state"]["sampling_steps"] >= 500
    assert picture(now["current_image"]).size == (128, 128)
    posted(app, "interrupt", {})
    first.join(60)
    second.join(60)
    cut, whole = (json.loads(answers[name].body) for name in ("first", "second"))
    assert json.loads(cut["info"])["interrupted"]
    assert "parameters" not in picture(cut["images"][0]).info
    assert not json.loads(whole["info"])["interrupted"]
    assert [each["name"] for each in json.loads(got(app, "/gallery").body)] == ["00001-3.png"]


def test_too_many_wait(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sdc.serve.studio.WAITING", 0)
    assert posted(app, "txt2img", {"prompt": "a", "steps": 1}).status == 503


def test_a_failure_is_an_answer(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Studio, "interrupt", lambda _: 1 / 0)
    answer = posted(app, "interrupt", {})
    assert answer.status == 500
    assert b"ZeroDivision" not in answer.body


def test_over_a_socket_until_it_is_interrupted(
    converted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    studio = open_studio(converted, engine="portable")
    server = Server(0, lambda port: App(studio, Gallery(tmp_path), hosts(port)))
    ended = threading.Event()
    monkeypatch.setattr(threading.Thread, "join", _interrupted_when(ended, threading.Thread.join))
    running = threading.Thread(target=server.run)
    running.start()
    try:
        assert server.server_address[0] == "127.0.0.1"
        _talk(server.server_port)
    finally:
        ended.set()
        monkeypatch.undo()
        running.join(30)
    assert not running.is_alive()
    with pytest.raises(OSError):  # noqa: PT011 - refused or reset
        http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=2).request("GET", "/")


def _interrupted_when(ended: threading.Event, join: Callable[..., None]) -> Callable[..., None]:
    """What Ctrl-C does to the thread that waits."""

    def interrupted(self: threading.Thread, timeout: float | None = None) -> None:
        if timeout == 0.5 and ended.wait(0.5):
            raise KeyboardInterrupt
        if timeout != 0.5:
            join(self, timeout)

    return interrupted


def _talk(port: int) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    body = json.dumps({"prompt": PROMPT, "steps": 1, "seed": 1})
    connection.request("POST", "/sdapi/v1/txt2img", body, {"Content-Type": "application/json"})
    answer = connection.getresponse()
    assert len(json.loads(answer.read())["images"]) == 1
    connection.request("GET", "/")
    answer = connection.getresponse()
    assert answer.read().startswith(b"<!doctype html>")
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    connection.request("PUT", "/")
    answer = connection.getresponse()
    assert (answer.status, b"field" in answer.read()) == (501, True)
    connection.close()
    for headers, status in (
        ({"Content-Length": str(LARGEST + 1)}, 413),
        ({"Content-Length": "-1"}, 400),
        ({"Transfer-Encoding": "chunked"}, 411),
    ):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        connection.putrequest("POST", "/sdapi/v1/interrupt")
        for name, value in headers.items():
            connection.putheader(name, value)
        connection.endheaders()
        assert connection.getresponse().status == status
        connection.close()


def test_a_port_that_is_taken(sdc: Any, converted: Path) -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        done = sdc("serve", converted, "--port", taken.getsockname()[1])
    assert done.status == 1
    assert "choose another with --port" in done.err
