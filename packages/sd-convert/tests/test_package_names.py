"""The name of a package, made from a checkpoint's, is one that a bundle's manifest takes."""

from hypothesis import example, given
from hypothesis import strategies as st
from sd_bundle import check_relative
from sd_convert.components.metadata import package_name


@given(st.text(st.characters(codec="utf-8"), max_size=200))
@example("stable: the best?")
@example('a<b>c|d"e*f\\g\nh')
@example("..")
def test_every_name_is_portable(version):
    name = package_name(version, "unet")
    check_relative(name, "$.package")
    assert "/" not in name


def test_a_hub_id_keeps_its_words():
    assert package_name("org/model", "unet") == "Stable_Diffusion_version_org_model_unet.mlpackage"
