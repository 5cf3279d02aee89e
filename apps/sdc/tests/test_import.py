"""``sdc import`` and ``sdc generate`` on what Apple's converter leaves."""

from pathlib import Path

import pytest

REFERENCE = Path(__file__).resolve().parents[4] / "shared" / "reference"
NAMES = ("text_encoder", "unet", "vae_decoder")


@pytest.fixture
def packages(tmp_path):
    if not REFERENCE.is_dir():
        pytest.skip("needs the reference packages")
    for name in NAMES:
        file = f"Stable_Diffusion_version_tiny-sd_{name}.mlpackage"
        (tmp_path / "apple" / file).parent.mkdir(exist_ok=True)
        (tmp_path / "apple" / file).symlink_to(REFERENCE / "reference-packages" / "split_einsum" / file)
    return tmp_path / "apple"


def test_a_folder_is_imported_and_drawn_with(sdc, packages, tmp_path):
    told = ("--family", "sd1", "--tokenizer", REFERENCE / "tiny-sd" / "tokenizer")
    done = sdc("import", packages, "-o", tmp_path / "bundle", *told)
    assert done.status == 0, done.err
    assert "tiny-sd, sd1, text-to-image, epsilon, 256x256" in done.out
    drawn = sdc(
        "generate", "a cat", "-i", tmp_path / "bundle", "-o", tmp_path / "p.png", "--num-inference-steps", 1
    )
    assert drawn.status == 0, drawn.err
    again = sdc("import", packages, "-o", tmp_path / "bundle", *told)
    assert again.status != 0
    assert "exists" in again.err


def test_what_is_not_said_is_one_line(sdc, packages, tmp_path):
    done = sdc("import", packages, "-o", tmp_path / "bundle", "--family", "sd1")
    assert done.status != 0
    assert done.err.count("\n") == 1
    assert "--tokenizer" in done.err
    told = sdc("generate", "a cat", "-i", packages, "-o", tmp_path / "p.png")
    assert told.err.count("\n") == 1
    assert "sdc import" in told.err
