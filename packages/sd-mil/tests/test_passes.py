"""Passes are held to what they say, and their order to what they require."""
# ruff: noqa: E501 - one line of MIL for each operation

import pytest
from mil_text import parsed
from sd_mil import read_package
from sd_mil.rewriting import PASSES, PassError, compute_in_integers, decode_constants, rewrites
from sd_mil.rewriting.properties import CASTS_UNREAD, DECODED, FOLDED, IN_ORDER, LIVE

READ = (
    "(tensor<fp16, [2]> x) { tensor<fp16, [2]> a = relu(x = x); tensor<fp16, [2]> y = exp(x = a); } -> (y);"
)
ALL = (compute_in_integers, decode_constants, *PASSES)


def test_every_pass_stands_after_those_that_ensure_what_it_requires():
    """A property lasts until a pass that does not know of it might break it: those are checked below."""
    ensured = {IN_ORDER}
    for one in ALL:
        assert set(one.requires) <= ensured, one.name
        ensured |= set(one.ensures)


@pytest.mark.parametrize(
    "name",
    [
        "split_einsum/Stable_Diffusion_version_tiny-sd_unet",
        "original/Stable_Diffusion_version_tiny-sd_unet",
        "split_einsum_v2/Stable_Diffusion_version_tiny-sd_unet",
        "split_einsum/Stable_Diffusion_version_tiny-sd_text_encoder",
        "split_einsum/Stable_Diffusion_version_tiny-sd_vae_decoder",
    ],
)
def test_passes_keep_their_promises_on_apples_packages(reference_packages, name):
    program = read_package(reference_packages / f"{name}.mlpackage").program
    ensured = set()
    for one in ALL:
        program = one.checked(program)
        ensured |= set(one.ensures)
        assert all(claim.holds(program) for claim in ensured), one.name
    assert ensured == {IN_ORDER, DECODED, CASTS_UNREAD, FOLDED, LIVE}


def test_a_pass_that_breaks_a_promise_is_caught():
    @rewrites(ensures=(LIVE,))
    def leave_all(program):
        return program

    text = READ.replace("-> (y)", "-> (a)")
    with pytest.raises(PassError, match="leave_all ensures that every operation has an effect"):
        leave_all.checked(parsed(text))
    assert leave_all(parsed(text)).main.outputs == ("a",)


def test_a_pass_that_changes_what_the_program_returns_is_caught():
    @rewrites(ensures=(IN_ORDER,))
    def return_less(program):
        return parsed(READ.replace("-> (y)", "-> (a)"))

    with pytest.raises(PassError, match="return_less keeps inputs and outputs"):
        return_less.checked(parsed(READ))


@pytest.mark.parametrize(
    ("claim", "text"),
    [
        (IN_ORDER, READ.replace("exp(x = a)", "exp(x = b)")),
        (IN_ORDER, READ.replace("exp(x = a)", "exp(x = y)")),
        (IN_ORDER, READ.replace("16, [2]> y", "16, [2]> a")),
        (IN_ORDER, READ.replace("-> (y)", "-> (z)")),
        (CASTS_UNREAD, READ.replace("relu(x = x)", 'cast(x = x, dtype = string("fp32"))')),
        (FOLDED, READ.replace("relu(x = x)", "transpose(x = w)").replace("{", "{ fp16 w = const()[val = fp16(1)];")),
        (DECODED, READ.replace("relu(x = x)", "constexpr_cast(source_val = fp16(1))")),
        (LIVE, READ.replace("exp(x = a)", "exp(x = x)")),
    ],
)  # fmt: skip
def test_each_property_can_fail(claim, text):
    assert claim.holds(parsed(READ))
    assert not claim.holds(parsed(text))
