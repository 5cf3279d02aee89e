"""Options that steer, before anything is loaded; and hints from the command line."""

from __future__ import annotations

import click
import mil_models
import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image, ImageDraw
from sdc.control_options import control_options, steering
from sdc.several import SeveralValues, TakesSeveral

NOTHING = {
    **{f"controlnet_{name}": () for name in ("inputs", "scale", "start", "end", "mask", "mode")},
    "controlnet": (),
    "controlnet_guess_mode": False,
    **{f"ip_adapter_{name}": () for name in ("image", "scale", "start", "end")},
    "ip_adapter": (),
}


@click.command(cls=TakesSeveral)
@click.argument("prompt")
@click.option("--net", cls=SeveralValues, multiple=True)
@click.option("-i", "--input", "inputs", cls=SeveralValues, multiple=True)
@click.option("--steps", type=int)
@click.option("--quiet", is_flag=True)
def taking(**given: object) -> None:
    click.echo(repr(given))


@pytest.mark.parametrize(
    ("arguments", "nets", "inputs"),
    [
        (["cat", "--net", "a", "b", "-i", "x", "y", "--quiet"], ("a", "b"), ("x", "y")),
        (["--net", "a", "cat"], ("a",), ()),
        (["--net", "a", "--net=b", "cat"], ("a", "b"), ()),
        (["--steps", "3", "cat", "--net=a", "--quiet", "-i", "x"], ("a",), ("x",)),
        (["cat", "--net", "a", "b", "--steps", "3"], ("a", "b"), ()),
        (["--net", "a", "--", "cat"], ("a",), ()),
    ],
)
def test_one_option_takes_several_values(
    arguments: list[str], nets: tuple[str, ...], inputs: tuple[str, ...]
) -> None:
    done = CliRunner().invoke(taking, arguments)
    assert done.exit_code == 0, done.output
    given = eval(done.output)  # noqa: S307
    assert (given["prompt"], given["net"], given["inputs"]) == ("cat", nets, inputs)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"controlnet_inputs": ("a.png",)}, "expected --controlnet with --controlnet-inputs"),
        ({"controlnet_guess_mode": True}, "expected --controlnet with --controlnet-guess-mode"),
        ({"controlnet": ("a",), "controlnet_inputs": ("a.png", "b.png")}, r"each --controlnet \(1\), got 2"),
        ({"ip_adapter_scale": (0.5,)}, "expected --ip-adapter-image with --ip-adapter-scale"),
        ({"ip_adapter": ("a",)}, "expected --ip-adapter-image with --ip-adapter, got none"),
        (
            {"ip_adapter_image": ("a.png",), "ip_adapter": ("a", "b")},
            r"each --ip-adapter-image \(1\), or none, got 2",
        ),
        (
            {
                "controlnet": ("a", "b", "c"),
                "controlnet_inputs": ("a.png",) * 3,
                "controlnet_scale": (1.0, 2.0),
            },
            r"one --controlnet-scale, or one for each --controlnet \(3\), got 2",
        ),
    ],
)
def test_what_does_not_go_together(asked: dict[str, object], said: str) -> None:
    with pytest.raises(click.UsageError, match=said):
        steering(None, {**NOTHING, **asked})  # type: ignore[arg-type]
    assert steering(None, dict(NOTHING)) is None  # type: ignore[arg-type]


def test_a_bundle_without_controlnets(sdc, converted, tmp_path) -> None:
    Image.new("L", (8, 8)).save(tmp_path / "hint.png")
    asked = ("--controlnet", "canny", "--controlnet-inputs", tmp_path / "hint.png")
    done = sdc("generate", "a red circle", "-i", converted, "-o", tmp_path / "x.png", *asked)
    assert done.status == 1
    assert "(none), got 'canny': convert the checkpoint again with --convert-controlnet" in done.err
    done = sdc("generate", "a", "-i", converted, "-o", tmp_path / "x.png", *asked, "--controlnet-scale", "-1")
    assert (done.status, done.err) == (1, "sdc: error: expected a scale from 0 to 10, got -1.0\n")


def test_a_controlnet_needs_a_unet_that_takes_it(sdc, checkpoint, tmp_path) -> None:
    done = sdc("convert", checkpoint, "-o", tmp_path / "x", "--convert-controlnet", "org/canny")
    assert done.status == 2
    assert "expected --unet-support-controlnet with --convert-controlnet, got none" in done.err


@pytest.fixture
def drawing(tmp_path):
    image = Image.new("RGB", (96, 64), "white")
    ImageDraw.Draw(image).ellipse((22, 12, 72, 52), fill="red")
    image.save(tmp_path / "in.png")
    return tmp_path / "in.png"


def test_hints_are_written(sdc, drawing, tmp_path) -> None:
    pytest.importorskip("cv2")
    out = tmp_path / "edges.png"
    done = sdc("hint", drawing, "--kind", "canny", "--option", "low=50", "-o", out)
    assert done.status == 0, done.err
    assert "canny, 96x64" in done.out
    edges = np.asarray(Image.open(out))
    assert set(np.unique(edges)) == {0, 255}
    Image.new("L", (96, 64), 255).save(tmp_path / "mask.png")
    done = sdc(
        "hint", drawing, "--kind", "inpaint", "--mask", tmp_path / "mask.png", "-o", tmp_path / "x.npy"
    )
    assert done.status == 0, done.err
    assert (np.load(tmp_path / "x.npy") == -1).all()


def test_a_model_makes_hints(sdc, drawing, tmp_path) -> None:
    model = mil_models.picture(tmp_path / "same.mlpackage", 48, 32)
    done = sdc("hint", drawing, "--kind", f"model:{model}", "-o", tmp_path / "x.png")
    assert done.status == 0, done.err
    made = Image.open(tmp_path / "x.png")
    assert made.size == (96, 64)
    expected = np.asarray(Image.open(drawing), float)
    assert np.abs(np.asarray(made, float) - expected).mean() < 12  # half the size, and back
    wide = mil_models.doubling(tmp_path / "wide.mlpackage", x=("float32", (1, 5)))
    done = sdc("hint", drawing, "--kind", f"model:{wide}", "-o", tmp_path / "x.png")
    assert "expected an input [1, 1 or 3, height, width], got [1, 5]" in done.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--kind", "pose", "-o", "x.png"), "a kind of hint of canny"),
        (("--kind", "canny", "-o", "x.jpg"), "ends in .png"),
        (("--kind", "inpaint", "-o", "x.png"), "ends in .npy"),
        (("--kind", "canny", "--option", "low", "-o", "x.png"), "expected NAME=NUMBER, got 'low'"),
        (("--kind", "canny", "--option", "sigma=3", "-o", "x.png"), "options of 'canny' (low=100, high=200)"),
        (("--kind", "model:absent.mlpackage", "-o", "x.png"), "absent.mlpackage"),
    ],
)
def test_hints_that_are_refused(sdc, drawing, tmp_path, monkeypatch, arguments, said) -> None:
    monkeypatch.chdir(tmp_path)
    done = sdc("hint", drawing, *arguments)
    assert done.status != 0
    assert said in done.err
    assert len(done.err.splitlines()) == 1 or done.status == 2
    assert not list(tmp_path.glob("x.*"))


def test_help_names_the_kinds(sdc) -> None:
    assert control_options is not None
    done = sdc("hint", "--help")
    assert "canny|softedge|lineart" in done.out.replace("\n", "")
