import mil_graphs as graphs
import numpy as np
import pytest
from sd_mil import Description, MLModel, Port, read_package, write_package


def test_metadata_survives(tmp_path):
    made = graphs.affine()
    described = Description(
        (Port("x", (2, 3), "float16", "an input"),),
        (Port("y", (2, 3), "float32"),),
        "short",
        "1.0",
        "me",
        "MIT",
        {"key": "value", "ümlaut": ""},
    )
    assert read_package(graphs.write(tmp_path, made, described)).description == described


def test_an_existing_path_is_left_alone(tmp_path):
    made = graphs.affine()
    with pytest.raises(FileExistsError):
        write_package(tmp_path, made, graphs.description(made))
    assert list(tmp_path.iterdir()) == []


def test_coremltools_reads_what_is_written(tmp_path):
    ct = pytest.importorskip("coremltools", exc_type=ImportError)
    path = graphs.write(tmp_path)
    spec = ct.models.MLModel(str(path), skip_model_load=True).get_spec()
    assert [one.name for one in spec.description.input] == ["x"]
    assert set(spec.mlProgram.functions) == {"main"}


def test_sub_byte_weights_survive_and_decode(tmp_path):
    lut = np.array([10, 20, 30, 40], np.float16).reshape(1, 1, 4, 1)
    indices = graphs.Constant(
        graphs.TensorType("uint2", (2, 3)), np.array([0b11_10_01_00, 0b0001], np.uint8), stored=2
    )
    made = graphs.program(
        {"x": ("fp16", 2, 3)},
        [
            graphs.call(
                "constexpr_lut_to_dense",
                "w",
                ("fp16", 2, 3),
                indices=indices,
                lut=graphs.tensor(lut, stored=True),
            ),
            graphs.call("add", "y", ("fp16", 2, 3), x="x", y="w"),
        ],
        ["y"],
    )
    model = MLModel(graphs.write(tmp_path, made), engine="reference")
    result = model.predict({"x": np.zeros((2, 3), np.float16)})["y"]
    assert result.tolist() == [[10, 20, 30], [40, 20, 10]]
