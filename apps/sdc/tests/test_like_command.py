"""``sdc convert --like``: new weights in the programs of a bundle."""

import json

from sd_bundle import open_bundle


def test_like_a_bundle_the_packages_are_those_of_a_conversion(sdc, checkpoint, converted, tmp_path):
    out = tmp_path / "like"
    options = ("--components", "text_encoder,vae_decoder", "--no-cache", "--json")
    done = sdc("convert", checkpoint, "-o", out, "--like", converted, *options)
    assert done.status == 0, done.err
    assert {one["program"] for one in json.loads(done.out)["components"]} == {str(converted)}
    made, full = open_bundle(out), open_bundle(converted)
    for name in ("text_encoder", "vae_decoder"):
        package = made.component(name).package
        assert package == full.component(name).package
        files = [file for file in made.manifest.files if file.startswith(f"{package}/")]
        assert len(files) == 3
        assert all((out / file).read_bytes() == (converted / file).read_bytes() for file in files)


def test_what_the_bundle_says_is_not_asked_for_again(sdc, checkpoint, converted, tmp_path):
    done = sdc("convert", checkpoint, "-o", tmp_path / "x", "--like", converted, "--compute-unit", "ALL")
    assert done.status == 2
    assert "--compute-unit does not go with --like" in done.err
