"""Calibration on a device of torch, here the CPU, against the same without one."""

import sys

import numpy as np
import pytest
from networks import ENGINE, const, layer, normal, program

torch = pytest.importorskip("torch")

from sd_compress import (  # noqa: E402 - torch may not be here
    Calibrated,
    CalibrationError,
    Collecting,
    Hessian,
    Palettize,
    PerGroupedChannel,
    Weight,
    collect_hessians,
    optimal_palette,
)
from sd_compress.calibration.devices import DeviceHessian, _nearest_vectors  # noqa: E402
from sd_compress.calibration.rounding import compensated, feedback  # noqa: E402
from sd_compress.calibration.tables import tables_of  # noqa: E402
from sd_mil import Constant, TensorType  # noqa: E402

SCHEMES = {
    "one table": Palettize(3),
    "a table for some outputs": Palettize(2, PerGroupedChannel(4)),
    "a table for some inputs": Palettize(2, PerGroupedChannel(12, axis=1)),
    "scales": Palettize(3, per_channel_scale=True),
    "vectors": Palettize(4, vector_size=2),
    "vectors of groups": Palettize(3, PerGroupedChannel(4), vector_size=2),
}


def weight(*shape):
    values = normal(*shape).astype(np.float16)
    return Weight(
        "w", "main", "conv", "op", "weight", Constant(TensorType("fp16", shape), values, values.nbytes)
    )


def hessian(*sizes):
    blocks = []
    for size in sizes:
        rows = normal(3 * size, size) @ normal(size, size)
        blocks.append((rows.T @ rows / len(rows)).astype(np.float32))
    return Hessian(tuple(blocks), 1)


@pytest.mark.parametrize("scheme", SCHEMES.values(), ids=SCHEMES)
def test_indices_are_the_same(scheme):
    """But for elements that are as near to one entry as to another, of which random ones are few."""
    one, known = weight(8, 24, 3, 3), hessian(150, 66)
    tables, matrix = tables_of(one, optimal_palette(one, scheme)), one.matrix().astype(np.float32)
    there = compensated(matrix, tables, DeviceHessian.of(known, "cpu"))
    here = compensated(matrix, tables, known)
    assert (there == here).mean() > 0.98
    noises = [known.noise(matrix - tables.decode(indices)) for indices in (there, here)]
    assert np.isclose(*noises, rtol=0.02)
    nearest = [compensated(matrix, tables, Hessian((np.eye(216, dtype=np.float32),), 1))]
    assert (nearest[0] != here).mean() > 0.2  # which is not what a device that does nothing would find


@pytest.mark.parametrize("scheme", SCHEMES.values(), ids=SCHEMES)
def test_palettes_are_as_good(scheme):
    one, known = weight(8, 24, 1, 1), hessian(24)
    exact = one.matrix().astype(np.float32)
    noises = []
    for device in (None, "cpu"):
        found = Calibrated({"w": known}, optimal_palette, device=device)(one, scheme)
        noises.append(known.noise(exact - one.matrix(found.decode()).astype(np.float32)))
    plain = known.noise(exact - one.matrix(optimal_palette(one, scheme).decode()).astype(np.float32))
    assert np.isclose(*noises, rtol=0.03)
    assert noises[1] < 0.9 * plain


def test_products_are_those_of_the_hessian():
    known, errors = hessian(6, 3), normal(4, 9)
    there = DeviceHessian.of(known, "cpu")
    assert np.allclose(there.times(errors), known.times(errors), rtol=1e-5)
    assert np.isclose(there.noise(errors), known.noise(errors), rtol=1e-5)


def test_factors_are_the_same_and_singular_blocks_are_damped():
    (block,) = hessian(9).blocks
    here, there = feedback(block), feedback(block, device="cpu")
    assert np.array_equal(here.order, there.order)
    assert np.allclose(here.upper, there.upper, atol=1e-5)
    negative = block - np.float32(0.02 * np.trace(block)) * np.eye(9, dtype=np.float32)
    assert np.allclose(feedback(negative).gains, feedback(negative, device="cpu").gains)


def test_many_distances_are_taken_in_parts(monkeypatch):
    entries, vectors = torch.from_numpy(normal(1, 5, 2)), torch.from_numpy(normal(7, 1, 2))
    whole = _nearest_vectors(entries, vectors)
    monkeypatch.setattr("sd_compress.calibration.devices._MOST_DISTANCES", 20)
    assert torch.equal(_nearest_vectors(entries, vectors), whole)
    assert torch.equal(_nearest_vectors(entries.expand(7, -1, -1), vectors), whole)


def test_hessians_are_the_same(tmp_path):
    made = program(
        (2, 5, 6),
        const("w", normal(4, 6)),
        layer("linear", "y", (2, 5, 4), {"x": "x", "weight": "w"}),
        output="y",
    )
    inputs = [{"x": normal(2, 5, 6)} for _ in range(3)]
    here, there = (
        collect_hessians(made, inputs, Collecting(engine=ENGINE, device=device), folder=folder)["w"]
        for device, folder in ((None, None), ("cpu", tmp_path))
    )
    assert there.rows == here.rows == 30
    assert np.allclose(*there.blocks, *here.blocks, rtol=1e-5, atol=1e-6)
    assert np.array_equal(*there.blocks, there.blocks[0].T)
    kept = list(tmp_path.rglob("*.npz"))
    collect_hessians(made, inputs, Collecting(engine=ENGINE), folder=tmp_path)
    assert list(tmp_path.rglob("*.npz")) == kept  # with a device or without, they are the same


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_an_error():
    one = weight(8, 24, 1, 1)
    with pytest.raises(CalibrationError, match="a GPU for the device 'cuda', got none that torch sees"):
        Calibrated({"w": hessian(24)}, optimal_palette, device="cuda")(one, Palettize(2))
    made = program((1, 6), const("w", normal(4, 6)), output="x")
    with pytest.raises(CalibrationError, match="'cuda'"):
        collect_hessians(made, [{"x": normal(1, 6)}], Collecting(engine=ENGINE, device="cuda"))


def test_without_torch_a_device_is_an_error(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(CalibrationError, match=r"pip install 'sd-compress\[torch\]'"):
        Calibrated({"w": hessian(24)}, optimal_palette, device="cpu")(weight(8, 24, 1, 1), Palettize(2))


def test_other_devices_are_refused():
    with pytest.raises(CalibrationError, match="'cpu' or 'cuda', got 'tpu'"):
        Collecting and collect_hessians(
            program((1, 6), const("w", normal(4, 6)), output="x"),
            [{"x": normal(1, 6)}],
            Collecting(engine=ENGINE, device="tpu"),
        )


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("scheme", SCHEMES.values(), ids=SCHEMES)
def test_a_gpu_finds_as_good_palettes(scheme):
    one, known = weight(8, 24, 3, 3), hessian(150, 66)
    exact = one.matrix().astype(np.float32)
    noises = []
    for device in (None, "cuda"):
        found = Calibrated({"w": known}, optimal_palette, device=device)(one, scheme)
        noises.append(known.noise(exact - one.matrix(found.decode()).astype(np.float32)))
    assert np.isclose(*noises, rtol=0.03)
