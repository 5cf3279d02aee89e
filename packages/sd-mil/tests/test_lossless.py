"""A package that is read and written again is the same model: message for message, weight for weight."""

import logging
from pathlib import Path

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


def convolved(**more):
    """A small network by coremltools, with weights in the file."""
    import coremltools as ct
    from coremltools.converters.mil.mil import Builder as mb  # noqa: N813

    target = more.pop("minimum_deployment_target", ct.target.iOS18)
    rng = np.random.default_rng(0)

    @mb.program(input_specs=[mb.TensorSpec((1, 3, *more.pop("size", (16, 16))))], opset_version=target)
    def network(x):
        weight = rng.standard_normal((32, 3, 3, 3)).astype(np.float32)
        x = mb.conv(x=x, weight=weight, pad_type="same", name="conv")
        return mb.relu(x=x, name="y")

    return ct.convert(
        network, minimum_deployment_target=target, compute_units=ct.ComputeUnit.CPU_ONLY, **more
    )


def plain():
    return convolved()


def of_ios15():
    import coremltools as ct

    return convolved(minimum_deployment_target=ct.target.iOS15)


def with_an_image():
    import coremltools as ct

    image = ct.ImageType(name="x", shape=(1, 3, 16, 16), color_layout="BGR", scale=1 / 255)
    return convolved(inputs=[image])


def with_enumerated_shapes():
    import coremltools as ct

    shapes = ct.EnumeratedShapes([(1, 3, 16, 16), (1, 3, 8, 8)])
    return convolved(size=(ct.converters.mil.mil.get_new_symbol(), 16), inputs=[ct.TensorType("x", shapes)])


def with_ranges():
    import coremltools as ct

    shape = ct.Shape((1, 3, ct.RangeDim(4, 32, default=8), 16))
    return convolved(size=(ct.converters.mil.mil.get_new_symbol(), 16), inputs=[ct.TensorType("x", shape)])


def with_a_classifier():
    import coremltools as ct
    from coremltools.converters.mil.mil import Builder as mb  # noqa: N813

    @mb.program(input_specs=[mb.TensorSpec((1, 3))], opset_version=ct.target.iOS16)
    def network(x):
        return mb.softmax(x=x, name="p")

    return ct.convert(
        network,
        minimum_deployment_target=ct.target.iOS16,
        classifier_config=ct.ClassifierConfig(["cat", "dog", "cow"]),
    )


def with_a_state():
    import coremltools as ct
    from coremltools.converters.mil.mil import Builder as mb  # noqa: N813

    specs = [mb.TensorSpec((2, 3)), mb.StateTensorSpec((2, 3), dtype=ct.converters.mil.mil.types.fp16)]

    @mb.program(input_specs=specs, opset_version=ct.target.iOS18)
    def network(x, held):
        x = mb.cast(x=x, dtype="fp16")
        total = mb.add(x=x, y=mb.read_state(input=held))
        mb.coreml_update_state(state=held, value=total)
        return mb.cast(x=total, dtype="fp32", name="y")

    return ct.convert(network, minimum_deployment_target=ct.target.iOS18)


def palettized():
    import coremltools.optimize.coreml as cto

    config = cto.OpPalettizerConfig(mode="uniform", nbits=3, weight_threshold=0)
    return cto.palettize_weights(plain(), cto.OptimizationConfig(config))


def in_four_bits():
    import coremltools.optimize.coreml as cto

    config = cto.OpLinearQuantizerConfig(
        dtype="int4", granularity="per_block", block_size=1, weight_threshold=0
    )
    return cto.linear_quantize_weights(plain(), cto.OptimizationConfig(config))


def pruned():
    import coremltools.optimize.coreml as cto

    config = cto.OpMagnitudePrunerConfig(target_sparsity=0.5, weight_threshold=0)
    return cto.prune_weights(plain(), cto.OptimizationConfig(config))


def with_a_default():
    import coremltools as ct

    given = ct.TensorType(
        "x", ct.Shape((1, 3, 16, 16)), default_value=np.full((1, 3, 16, 16), 0.5, np.float32)
    )
    return convolved(inputs=[given])


def of_unknown_rank():
    import coremltools as ct
    from coremltools.converters.mil.mil import Builder as mb  # noqa: N813

    length = ct.converters.mil.mil.get_new_symbol()
    specs = [mb.TensorSpec((length,), dtype=ct.converters.mil.mil.types.int32)]

    @mb.program(input_specs=specs, opset_version=ct.target.iOS16)
    def network(x):
        return mb.fill(shape=x, value=2.0, name="y")

    given = ct.TensorType("x", (ct.RangeDim(1, 4, default=2),), dtype=np.int32)
    return ct.convert(network, minimum_deployment_target=ct.target.iOS16, inputs=[given])


def with_a_loop():
    import coremltools as ct
    from coremltools.converters.mil.mil import Builder as mb  # noqa: N813

    @mb.program(input_specs=[mb.TensorSpec((2, 3))], opset_version=ct.target.iOS16)
    def network(x):
        counted = mb.while_loop(
            _cond=lambda count, _: mb.less(x=count, y=3),
            _body=lambda count, value: (mb.add(x=count, y=1), mb.mul(x=value, y=2.0)),
            loop_vars=(mb.const(val=0), x),
        )
        return mb.identity(x=counted[1], name="y")

    return ct.convert(network, minimum_deployment_target=ct.target.iOS16)


MADE = [
    with_a_default, of_unknown_rank, with_a_loop,
    plain, of_ios15, with_an_image, with_enumerated_shapes, with_ranges, with_a_classifier, with_a_state,
    palettized, in_four_bits, pruned,
]  # fmt: skip


@pytest.mark.parametrize("make", MADE, ids=lambda make: make.__name__)
def test_packages_by_coremltools(tmp_path, make):
    model = make()
    model.short_description, model.user_defined_metadata["key"] = "what it is", "value"
    model.save(str(tmp_path / "model.mlpackage"))
    check_same(tmp_path / "model.mlpackage", tmp_path / "again.mlpackage")


def test_several_functions(tmp_path):
    from coremltools.models.utils import MultiFunctionDescriptor, save_multifunction

    plain().save(str(tmp_path / "one.mlpackage"))
    described = MultiFunctionDescriptor()
    for name in ("first", "second"):
        described.add_function(str(tmp_path / "one.mlpackage"), "main", name)
    described.default_function_name = "second"
    save_multifunction(described, str(tmp_path / "model.mlpackage"))
    check_same(tmp_path / "model.mlpackage", tmp_path / "again.mlpackage")


@pytest.fixture
def package(tmp_path):
    """Of coremltools: an image goes in, and there is metadata."""
    model = with_an_image()
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
