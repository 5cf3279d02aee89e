"""A package that is read and written again is the same model: message for message, weight for weight.

One that is compiled comes back with the same operations, names, types and values.
"""

import logging
from pathlib import Path

import compiled_models
import coremltools_makes as made
import numpy as np
import pytest
from sd_mil import Constant, Function, Program, UnsupportedModelError, read_package, write_package
from sd_mil.format.encoding import double, field, integer
from sd_mil.ir.program import Block, Operation, TensorType, Variable

pytest.importorskip("coremltools", exc_type=ImportError)

pytestmark = [  # coremltools leaves its temporary folders to the garbage collector
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

logging.getLogger("coremltools").setLevel(logging.ERROR)

PACKAGES = [
    "controlnet/ControlNet_tiny-controlnet",
    "controlnet/Stable_Diffusion_version_tiny-sd_control-unet",
    "original/Stable_Diffusion_version_tiny-sd_unet",
    "sdxl_original/Stable_Diffusion_version_tiny-sdxl_text_encoder_2",
    "split_einsum/Stable_Diffusion_version_tiny-sd_safety_checker",
    "split_einsum/Stable_Diffusion_version_tiny-sd_text_encoder",
    "split_einsum/Stable_Diffusion_version_tiny-sd_vae_decoder",
    "split_einsum_v2/Stable_Diffusion_version_tiny-sd_unet",
]


def message(package):
    from coremltools.proto import Model_pb2

    (file,) = Path(package).glob("Data/*/model.mlmodel")
    return Model_pb2.Model.FromString(file.read_bytes())


def weights(package):
    files = list(Path(package).glob("Data/*/weights/weight.bin"))
    return files[0].read_bytes() if files else b""


def check_same(package, again):
    read = read_package(package)
    written = write_package(
        again, read.program, read.descriptions or read.description, version=read.specification_version
    )
    assert message(written.path) == message(package)
    if weights(package):
        assert weights(written.path) == weights(package)


@pytest.mark.parametrize("name", PACKAGES)
def test_the_packages_of_apples_converter(reference_packages, tmp_path, name):
    check_same(reference_packages / f"{name}.mlpackage", tmp_path / "again.mlpackage")


@pytest.mark.parametrize("make", made.MADE, ids=lambda make: make.__name__)
def test_packages_by_coremltools(tmp_path, make):
    model = make()
    model.short_description, model.user_defined_metadata["key"] = "what it is", "value"
    model.save(str(tmp_path / "model.mlpackage"))
    check_same(tmp_path / "model.mlpackage", tmp_path / "again.mlpackage")
    compiled_models.check_same(tmp_path / "model.mlpackage", tmp_path)


def test_several_functions(tmp_path):
    package = made.with_several_functions(tmp_path)
    check_same(package, tmp_path / "again.mlpackage")
    compiled_models.check_same(package, tmp_path)


@pytest.fixture
def package(tmp_path):
    """Of coremltools: an image goes in, and there is metadata."""
    model = made.with_an_image()
    model.short_description, model.user_defined_metadata["key"] = "what it is", "value"
    model.save(str(tmp_path / "model.mlpackage"))
    return tmp_path / "model.mlpackage"


def rewritten(package, change):
    """The package with its message changed."""
    (file,) = package.glob("Data/*/model.mlmodel")
    changed = message(package)
    change(changed)
    file.write_bytes(changed.SerializeToString())
    return package


def unknown(where, number=7777, content=b"from a later version"):
    """Put a field that no version of the message has into it."""
    where.MergeFromString(field(number, content) + integer(number + 1, 1 << 40) + double(number + 2, 0.5))


def body_of(changed):
    (body,) = changed.mlProgram.functions["main"].block_specializations.values()
    return body


KEPT = {
    "Model": lambda one: one,
    "ModelDescription": lambda one: one.description,
    "Metadata": lambda one: one.description.metadata,
    "FeatureDescription": lambda one: one.description.input[0],
    "Program": lambda one: one.mlProgram,
    "Function": lambda one: one.mlProgram.functions["main"],
    "Block": body_of,
    "Operation": lambda one: body_of(one).operations[0],
}
REFUSED = {
    "ImageFeatureType": lambda one: one.description.input[0].type.imageType,
    "ArrayFeatureType": lambda one: one.description.output[0].type.multiArrayType,
    "NamedValueType": lambda one: body_of(one).operations[0].outputs[0],
    "TensorType": lambda one: body_of(one).operations[0].outputs[0].type.tensorType,
    "Value": lambda one: body_of(one).operations[0].attributes["name"],
    "Dimension": lambda one: one.mlProgram.functions["main"].inputs[0].type.tensorType.dimensions[0].constant,
    "BlobFileValue": lambda one: stored_value(one).blobFileValue,
    "Argument": lambda one: next(iter(body_of(one).operations[-1].inputs.values())),
}


def stored_value(changed):
    values = (value for one in body_of(changed).operations for value in one.attributes.values())
    return next(value for value in values if value.HasField("blobFileValue"))


@pytest.mark.parametrize("where", KEPT.values(), ids=KEPT)
def test_fields_of_later_versions_are_written_again(tmp_path, package, where):
    check_same(rewritten(package, lambda one: unknown(where(one))), tmp_path / "again.mlpackage")


@pytest.mark.parametrize("name", REFUSED)
def test_fields_that_might_change_a_type_or_a_value_are_refused_by_name(package, name):
    rewritten(package, lambda one: unknown(REFUSED[name](one)))
    with pytest.raises(UnsupportedModelError, match=f"in the {name} of .* got fields 7777, 7778, 7779"):
        read_package(package)


def test_fields_that_coremltools_knows_and_the_reader_does_not(tmp_path, package):
    def change(one):
        one.isUpdatable = True
        one.mlProgram.docString = "what it computes"
        one.description.trainingInput.add().CopyFrom(one.description.input[0])

    check_same(rewritten(package, change), tmp_path / "again.mlpackage")


def test_bodies_in_other_opsets_are_kept_with_their_weights(tmp_path, package):
    def change(one):
        body = body_of(one)
        bodies = one.mlProgram.functions["main"].block_specializations
        bodies["CoreML5"].CopyFrom(body)
        bodies["CoreML5"].operations[-1].type = "softplus"

    check_same(rewritten(package, change), tmp_path / "again.mlpackage")
    assert read_package(package).program.main.opset == "CoreML8"


def test_a_name_is_not_invented(tmp_path):
    """An operation without the attribute has it neither in the message nor in the text."""
    from sd_mil import print_program

    kind = TensorType("fp32", (2,))
    value = Constant(kind, np.ones(2, np.float32))
    held = Operation("const", "k", {}, (Variable("k", kind),), {"val": value})
    program = Program({"main": Function("main", "CoreML6", Block((), (held,), ("k",)))})
    from sd_mil import Description, Port

    written = write_package(tmp_path / "m.mlpackage", program, Description((), (Port("k", (2,), "float32"),)))
    (body,) = message(written.path).mlProgram.functions["main"].block_specializations.values()
    (operation,) = body.operations
    assert list(operation.attributes) == ["val"]
    assert "name =" not in print_program(program)
