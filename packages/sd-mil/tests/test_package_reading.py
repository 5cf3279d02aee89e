import json

import mil_graphs as graphs
import numpy as np
import pytest
from sd_mil import PackageError, Port, Reference, UnsupportedModelError, read_package
from sd_mil.format.encoding import varint


def field(number, payload):
    return varint(number << 3 | 2) + varint(len(payload)) + payload


def test_ports_operations_and_constants_are_read(tmp_path):
    package = read_package(graphs.write(tmp_path))
    assert package.specification_version == 7
    assert package.description.inputs == (Port("x", (2, 3), "float16"),)
    assert package.description.outputs == (Port("y", (2, 3), "float32"),)
    operations = list(package.program.operations())
    assert [one.type for one in operations] == ["const", "const", "const", "mul", "add", "cast"]
    assert operations[3].inputs == {"x": (Reference("x"),), "y": (Reference("w"),)}
    assert operations[0].attributes["val"].value.tolist() == [1, 2, 3]
    assert operations[2].attributes["val"].value == "fp32"


def test_weights_are_mapped_writable_and_never_written_back(tmp_path):
    path = graphs.write(tmp_path)
    before = graphs.weight_file(path).read_bytes()
    weight = next(read_package(path).program.operations()).attributes["val"]
    assert weight.stored == 6
    assert weight.value.base is not None
    weight.value[:] = 7
    assert graphs.weight_file(path).read_bytes() == before
    assert next(read_package(path).program.operations()).attributes["val"].value.tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    "array",
    [
        np.array(1.5, np.float16),
        np.array([1.5, -np.inf], np.float32),
        np.array([[1e300]], np.float64),
        np.array([True, False]),
        np.array([-1, 2**31 - 1], np.int32),
        np.array([-(2**63)], np.int64),
        np.array([-128, 127], np.int8),
        np.array([0, 255], np.uint8),
        np.zeros((0, 4), np.float32),
        "text, with ümlaut",
    ],
    ids=lambda array: getattr(getattr(array, "dtype", None), "name", "text"),
)
def test_inline_constants_of_every_kind(tmp_path, array):
    made = graphs.program({"x": ("fp32", 1)}, [graphs.const("c", array)], ["x"])
    value = next(read_package(graphs.write(tmp_path, made)).program.operations()).attributes["val"].value
    if isinstance(array, str):
        assert value == array
    else:
        assert value.dtype == array.dtype
        np.testing.assert_array_equal(value, array)


def test_the_manifest_is_followed_to_any_author(tmp_path):
    path = graphs.write(tmp_path)
    (path / "Data" / "com.apple.CoreML").rename(path / "Data" / "org.example.Test")
    manifest = path / "Manifest.json"
    manifest.write_text(manifest.read_text().replace("com.apple.CoreML", "org.example.Test"))
    assert read_package(path).weight_bytes > 0


def test_linked_files_are_followed(tmp_path):
    """As the cache of a model hub keeps them."""
    path = graphs.write(tmp_path)
    blob = graphs.weight_file(path).rename(tmp_path / "blob")
    graphs.weight_file(path).symlink_to(blob)
    assert read_package(path).weight_bytes > 0


@pytest.mark.parametrize(
    ("number", "name"), [(500, "a neural network"), (402, "a tree ensemble"), (499, "type 499")]
)
def test_other_models_are_named(tmp_path, number, name):
    path = graphs.write(tmp_path)
    graphs.model_file(path).write_bytes(b"\x08\x04" + field(2, b"") + field(number, b""))
    with pytest.raises(UnsupportedModelError, match=name):
        read_package(path)


def test_missing_paths_are_named(tmp_path):
    with pytest.raises(PackageError, match="got nothing at this path"):
        read_package(tmp_path / "nothing")


@pytest.mark.parametrize("name", ["../outside", "/etc/passwd", "a/../../b", "..\\x", "C:x", "\0"])
def test_manifest_paths_stay_inside(tmp_path, name):
    path = graphs.write(tmp_path)
    manifest = json.loads((path / "Manifest.json").read_text())
    manifest["itemInfoEntries"][manifest["rootModelIdentifier"]]["path"] = name
    (path / "Manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(PackageError, match="inside the package"):
        read_package(path)


@pytest.mark.parametrize(
    "manifest", ["", "[]", "{}", '{"rootModelIdentifier": [], "itemInfoEntries": {}}', "[" * 9999]
)
def test_manifests_that_lead_nowhere(tmp_path, manifest):
    path = graphs.write(tmp_path)
    (path / "Manifest.json").write_text(manifest)
    with pytest.raises(PackageError, match="Manifest"):
        read_package(path)


def test_errors_name_the_package(tmp_path):
    path = graphs.write(tmp_path)
    graphs.weight_file(path).unlink()
    with pytest.raises(PackageError, match=r"model\.mlpackage: expected the file .*weight\.bin"):
        read_package(path)
