"""standardise, as MIL text."""

import pytest
from mil_text import assert_leaves_alone, assert_rewrites, parsed
from sd_mil.rewriting import PassError
from sd_mil.rewriting.standardise import standardise

X = "tensor<fp32, [2, 4, 3]>"
AXES, KEEP = "axes = tensor<int32, [1]>([-1]), keep_dims = bool(true)", "tensor<fp32, [2, 4, 1]>"


def taken_apart(*, square="square(x = d)", end="real_div(x = d, y = r)", root="sqrt(x = e)", mean="x = x"):
    return f"""({X} x) {{
        {KEEP} m = reduce_mean({mean}, {AXES});
        {X} d = sub(x = x, y = m);
        {X} q = {square};
        {KEEP} v = reduce_mean(x = q, {AXES});
        {KEEP} e = add(x = v, y = fp32(0.5));
        {KEEP} r = {root};
        {X} y = {end};
    }} -> (y);"""


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"square": "mul(x = d, y = d)"},
        {"root": "rsqrt(x = e, epsilon = fp32(0))", "end": "mul(x = r, y = d)"},
    ],
)
def test_a_normalisation_is_one_operation(options):
    before = taken_apart(**options)
    start = before[: before.rindex(f"{X} y")]
    layer = f"{X} y = layer_norm(x = x, axes = tensor<int32, [1]>([2]), epsilon = fp32(0.5));"
    assert_rewrites(standardise, before, f"{start}{layer}}} -> (y);")


@pytest.mark.parametrize(
    "options",
    [
        {"square": "mul(x = d, y = x)"},
        {"end": "real_div(x = x, y = r)"},
        {"root": "exp(x = e)"},
        {"mean": "x = x0"},
    ],
)
def test_what_only_resembles_one_is_left_alone(options):
    text = taken_apart(**options)
    assert_leaves_alone(standardise, text.replace(f"({X} x)", f"({X} x, {X} x0)"))


def test_it_is_for_programs_whose_casts_nobody_reads():
    text = taken_apart().replace(f"{X} y =", f'{X} c = cast(x = x, dtype = string("fp32")); {X} y =')
    with pytest.raises(PassError, match="standardise requires that no operation"):
        standardise.checked(parsed(text.replace("real_div(x = d", "real_div(x = c")))
