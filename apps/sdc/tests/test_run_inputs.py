"""What ``sdc run --input`` takes: numbers and lists on the command line, and files of strangers."""

import contextlib
import io
import json
import os
import pickle
import resource
import struct
import subprocess
import sys
import tracemalloc
import zipfile

import mil_models as models
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from sd_mil import Port, PredictionError, ShapeRange
from sd_runtime import UserImageError
from sdc.arrays import read_array
from sdc.pictures import read_picture


@pytest.fixture
def pair(tmp_path):
    """y = x + x of float16[2, 3]; twice = count + count of int32[2]."""
    return models.doubling(tmp_path / "pair.mlpackage", x=("float16", (2, 3)), count=("int32", (2,)))


@pytest.fixture
def single(tmp_path):
    return models.doubling(tmp_path / "single.mlpackage", x=("float32", (1, 1)))


@pytest.fixture
def picture(tmp_path):
    return models.picture(tmp_path / "picture.mlpackage", 6, 4)


def values(done, folder, name):
    assert done.status == 0, done.err
    return np.load(folder / f"{name}.npy")


def refused(done, *words):
    assert done.status == 1
    assert len(done.err.strip().splitlines()) == 1, done.err
    assert len(done.err) < 2000
    assert "a bug" not in done.err
    assert "Traceback" not in done.err
    for word in words:
        assert word in done.err, done.err


def test_lists_have_the_shape_of_the_port(sdc, pair, tmp_path):
    done = sdc(
        "run",
        pair,
        "--input",
        "x=[[0.5, 1, 2], [-1, 1e-3, 4]]",
        "--input",
        "count=[7, -2]",
        "-o",
        tmp_path / "out",
    )
    expected = 2 * np.float16([[0.5, 1, 2], [-1, 1e-3, 4]])
    np.testing.assert_array_equal(values(done, tmp_path / "out", "twice_x"), expected)
    np.testing.assert_array_equal(values(done, tmp_path / "out", "twice_count"), [14, -4])


@pytest.mark.parametrize("text", ["0.4", "4", "-.5", "+1e-3", "1E2", "[0.4]", "[[3]]", "inf"])
def test_a_number_fills_one_element(sdc, single, tmp_path, text):
    done = sdc("run", single, "--input", f"x={text}", "-o", tmp_path / "out")
    if text == "[0.4]":
        refused(done, "'x'", "float32[1, 1]", "[0.4]")
        return
    expected = 2 * np.float32(text.strip("[]"))
    np.testing.assert_array_equal(values(done, tmp_path / "out", "twice_x"), [[expected]])


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("x=0.4", "0.4"),  # one number does not fill six elements
        ("x=[1, 2]", "[1, 2]"),
        ("x=[[1, 2, 3], [4, 5, 70000]]", "range of float16"),
        ("x=[[1, 2, 3], [4, 5]]", "list of numbers"),
        ("x=[1, 2", "list of numbers"),
        ("x=[]", "float64[0]"),
        ("x=[[1, 2, 3], [4, 5, null]]", "list of numbers"),
        ('x=["1"]', "list of numbers"),
        ("x=" + "[" * 5000 + "]" * 5000, "list of numbers"),
        ("x=" + "9" * 5000, "list of numbers"),
        ("x=" + "n" * 5000, "list of numbers"),
        ("count=[1, 2.5]", "'count'"),
        ("count=[1, 3000000000]", "does not fit"),
        ("count=[1, 99999999999999999999999]", "list of numbers"),
    ],
)
def test_what_does_not_fit_names_the_port(sdc, pair, text, word):
    name = text.partition("=")[0]
    refused(
        sdc("run", pair, "--random", "--input", text),
        name,
        "float16[2, 3]" if name == "x" else "int32[2]",
        word,
    )


def test_an_input_is_given_once(sdc, single):
    refused(sdc("run", single, "--input", "x=1", "--input", "x=2"), "one value", "'x'", "'1'", "'2'")


@pytest.mark.parametrize("text", ["1", "[1, 2]"])
def test_a_picture_is_no_number(sdc, picture, text):
    refused(sdc("run", picture, "--input", f"image={text}"), "image", "a picture")


def test_numbers_reach_optional_inputs_of_pipelines(sdc, tmp_path):
    path, scores = models.detector(tmp_path)
    for threshold in (0.1, 0.55, 0.95):
        done = sdc("run", path, "--random", "--input", f"confidenceThreshold={threshold}", "--json")
        assert done.status == 0, done.err
        rows = {row["name"]: row["shape"] for row in json.loads(done.out)["outputs"]}
        assert rows["confidence"] == [int((scores >= threshold).sum()), 1]
    refused(
        sdc("run", path, "--random", "--input", "confidenceThreshold=[1, 2]"), "confidenceThreshold", "double"
    )
    refused(sdc("run", path, "--random", "--input", "confidenceThreshold=nan"), "confidenceThreshold", "nan")


def archive(**members):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as opened:
        for name, content in members.items():
            opened.writestr(f"{name}.npy", content)
    return file.getvalue()


def saved(array, **options):
    file = io.BytesIO()
    np.save(file, array, **options)
    return file.getvalue()


def header(text, version=1):
    length = struct.pack("<H" if version == 1 else "<I", len(text))
    return b"\x93NUMPY" + bytes([version, 0]) + length + text.encode()


GOOD = saved(np.ones((2, 3), np.float32))
HUGE = header("{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }\n")
FILES = {
    "unfinished header.npy": header("{'descr': '<f4', 'fortran_order': False, 'shape': (1,"),
    "deep header.npy": header("(" * 9000),
    "header of 4 GiB.npy": b"\x93NUMPY\x02\x00" + b"\xff" * 4,
    "version.npy": b"\x93NUMPY\x09\x00" + GOOD[8:],
    "short.npy": GOOD[:-1],
    "no data.npy": HUGE,
    "pickled.npy": saved(np.array([{}], dtype=object), allow_pickle=True),
    "fields.npy": saved(np.zeros((2, 3), [("a", "f4"), ("b", "i4")])),
    "text.npy": saved(np.full((2, 3), "x")),
    "negative.npy": header("{'descr': '<f4', 'fortran_order': False, 'shape': (-2, -3), }\n") + bytes(24),
    "pointer.npy": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n",
    "pickle.npy": pickle.dumps({}),
    "page.npz": b"<!DOCTYPE html><html></html>",
    "cut.npz": archive(x=GOOD)[:-30],
    "neither.npz": archive(a=GOOD, b=GOOD),
    "empty.npz": archive(),
    "member that is cut.npz": archive(x=GOOD[:-4]),
    "member without data.npz": archive(x=HUGE),
    "claims.npz": archive(
        x=header("{'descr': '<f8', 'fortran_order': False, 'shape': (1099511627776,), }\n")
    ),
    "picture.png": b"\x89PNG\r\n\x1a\n",
}


@pytest.mark.parametrize("name", FILES)
def test_files_that_hold_no_such_array(sdc, pair, tmp_path, name):
    (tmp_path / name).write_bytes(FILES[name])
    done = sdc("run", pair, "--random", "--input", f"x={tmp_path / name}")
    refused(done, "expected", "'x'" if "got" not in done.err else "got")


def test_good_files_are_read(sdc, pair, tmp_path):
    for name, content in (("a.npy", GOOD), ("b.npz", archive(x=GOOD, y=b"")), ("c.npz", archive(other=GOOD))):
        (tmp_path / name).write_bytes(content)
        done = sdc("run", pair, "--random", "--input", f"x={tmp_path / name}", "-o", tmp_path / "out")
        np.testing.assert_array_equal(values(done, tmp_path / "out", "twice_x"), np.full((2, 3), 2))


def test_fortran_order_and_big_endian(sdc, pair, tmp_path):
    array = np.asfortranarray(np.arange(6, dtype=">f4").reshape(2, 3))
    np.save(tmp_path / "x.npy", array)
    done = sdc("run", pair, "--random", "--input", f"x={tmp_path / 'x.npy'}", "-o", tmp_path / "out")
    np.testing.assert_array_equal(values(done, tmp_path / "out", "twice_x"), 2 * array)


def test_an_encrypted_member(sdc, pair, tmp_path):
    content = bytearray(archive(x=GOOD))
    central = content.index(b"PK\x01\x02")
    content[6] |= 1  # the flag, in both headers
    content[central + 8] |= 1
    (tmp_path / "x.npz").write_bytes(content)
    refused(sdc("run", pair, "--random", "--input", f"x={tmp_path / 'x.npz'}"), "encrypted")


def test_bombs_are_not_unpacked(sdc, pair, tmp_path):
    """256 MiB of zeros behind a header that says so, packed into a quarter of one."""
    with (
        zipfile.ZipFile(tmp_path / "x.npz", "w", zipfile.ZIP_DEFLATED) as opened,
        opened.open("x.npy", "w", force_zip64=True) as member,
    ):
        member.write(header("{'descr': '<f4', 'fortran_order': False, 'shape': (67108864,), }\n"))
        for _ in range(64):
            member.write(bytes(1 << 22))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refused(sdc("run", pair, "--random", "--input", f"x={tmp_path / 'x.npz'}"), "float32[67108864]")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 << 10  # KiB


@pytest.mark.parametrize("suffix", ["npy", "npz"])
def test_claims_of_a_header_are_not_allocated(tmp_path, suffix):
    """A port of any length would take it; a file of some bytes does not hold it."""
    content = header("{'descr': '<f4', 'fortran_order': False, 'shape': (134217728,), }\n") + bytes(100)
    path = tmp_path / f"x.{suffix}"
    path.write_bytes(content if suffix == "npy" else archive(x=content))
    port = Port("x", (1,), "float32", flexibility=ShapeRange(((1, None),)))
    tracemalloc.start()
    with pytest.raises(PredictionError, match="100 bytes of 536870912"):
        read_array(path, port)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), max_size=4), st.booleans(), st.data())
def test_damage_is_typed(tmp_path, edits, packed, data):
    content = bytearray(archive(x=GOOD) if packed else GOOD)
    for place, byte in edits:
        content[place % len(content)] = byte
    path = tmp_path / f"x.{'npz' if packed else 'npy'}"
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    with contextlib.suppress(PredictionError):
        assert read_array(path, Port("x", (2, 3), "float32")).shape == (2, 3)


def test_other_decoders_are_not_started(picture, tmp_path):
    """Pillow hands an EPS file to Ghostscript, whatever its name."""
    (tmp_path / "x.png").write_bytes(
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 6 4\n%%EndComments\nshowpage\n"
    )
    script = (
        "import sys\n"
        "sys.addaudithook(lambda event, _: event == 'subprocess.Popen' and print('started'))\n"
        f"sys.argv = ['sdc', 'run', {str(picture)!r}, '--input', 'image={tmp_path / 'x.png'}']\n"
        "from sdc.cli import main\nmain()\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "started" not in done.stdout
    assert "hostscript" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_pixels_of_a_picture_are_the_picture(sdc, picture, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (4, 6, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "x.png")
    np.save(tmp_path / "x.npy", pixels)
    np.save(tmp_path / "tensor.npy", pixels.transpose(2, 0, 1)[None].astype(np.float32))
    for name in ("x.png", "x.npy", "tensor.npy"):
        done = sdc("run", picture, "--input", f"image={tmp_path / name}", "-o", tmp_path / "out")
        np.testing.assert_array_equal(values(done, tmp_path / "out", "same")[0], pixels.transpose(2, 0, 1))
    np.save(tmp_path / "x.npy", pixels.transpose(1, 0, 2))
    refused(sdc("run", picture, "--input", f"image={tmp_path / 'x.npy'}"), "6x4", "uint8[6, 4, 3]")
    np.save(tmp_path / "x.npy", pixels.astype(np.float64))
    refused(sdc("run", picture, "--input", f"image={tmp_path / 'x.npy'}"), "6x4", "float64[4, 6, 3]")


def test_pictures_of_too_many_pixels(sdc, picture, tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20)
    Image.new("RGB", (6, 4)).save(tmp_path / "x.png")  # more than the limit, less than twice that
    refused(sdc("run", picture, "--input", f"image={tmp_path / 'x.png'}"), "at most 20 pixels")


def test_pictures_of_more_than_8_bits(sdc, picture, tmp_path):
    Image.fromarray(np.full((4, 6), 40_000, np.uint16)).save(tmp_path / "x.png")
    refused(sdc("run", picture, "--input", f"image={tmp_path / 'x.png'}"), "8 bits", "'x.png'")


def test_libraries_in_c_say_nothing_of_their_own(tmp_path, capfd):
    path = tmp_path / "x.tif"
    Image.new("RGB", (6, 4)).save(path, compression="tiff_adobe_deflate")
    content = path.read_bytes()
    path.write_bytes(content.replace(b"\x78\x9c", b"\x00\x00"))
    assert path.read_bytes() != content
    port = Port("image", (1, 3, 4, 6), "float32", kind="image", color="RGB")
    with pytest.raises(UserImageError, match=r"x\.tif"):
        read_picture(path, port, resize=False)
    assert capfd.readouterr().err == ""
    os.write(2, b"still there")
    assert capfd.readouterr().err == "still there"


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "gif", "bmp", "tif"])
def test_damaged_pictures(sdc, picture, tmp_path, suffix):
    path = tmp_path / f"x.{suffix}"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (4, 6, 3), np.uint8)).save(path)
    assert sdc("run", picture, "--input", f"image={path}").status == 0
    path.write_bytes(path.read_bytes()[:30])
    refused(sdc("run", picture, "--input", f"image={path}"), f"x.{suffix}")
