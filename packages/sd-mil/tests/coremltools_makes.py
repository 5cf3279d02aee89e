"""Small models that coremltools makes, one of each kind; each function converts one when it is called."""

import numpy as np


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


def with_a_list_in_nested_blocks():
    """A loop that writes into a list what a branch in it returns."""
    import coremltools as ct
    from coremltools.converters.mil.mil import Builder as mb  # noqa: N813

    def body(count, written):
        again = mb.while_loop(
            _cond=lambda turn, _: mb.less(x=turn, y=2),
            _body=lambda turn, value: (mb.add(x=turn, y=1), mb.mul(x=value, y=1.5)),
            loop_vars=(mb.const(val=0), mb.list_read(ls=written, index=count)),
        )
        large = mb.greater(x=count, y=0)
        chosen = mb.cond(
            pred=large, _true_fn=lambda: mb.relu(x=again[1]), _false_fn=lambda: mb.abs(x=again[1])
        )
        count = mb.add(x=count, y=1)
        return count, mb.list_write(ls=written, index=count, value=chosen)

    @mb.program(input_specs=[mb.TensorSpec((2, 3))], opset_version=ct.target.iOS17)
    def network(x):
        empty = mb.make_list(init_length=1, dynamic_length=True, elem_shape=(2, 3), dtype="fp32")
        first = mb.list_write(ls=empty, index=0, value=x)
        _, written = mb.while_loop(
            _cond=lambda count, _: mb.less(x=count, y=2), _body=body, loop_vars=(mb.const(val=0), first)
        )
        return mb.list_gather(ls=written, indices=[2, 1], name="y")

    return ct.convert(network, minimum_deployment_target=ct.target.iOS17)


def with_small_integers():
    """Bytes in and out, as iOS 26 has them."""
    import coremltools as ct
    from coremltools.converters.mil.mil import Builder as mb  # noqa: N813

    specs = [mb.TensorSpec((2, 3), dtype=ct.converters.mil.mil.types.int8)]

    @mb.program(input_specs=specs, opset_version=ct.target.iOS26)
    def network(x):
        doubled = mb.mul(x=mb.cast(x=x, dtype="fp16"), y=np.float16(2))
        return mb.cast(x=doubled, dtype="int8", name="y")

    return ct.convert(
        network,
        minimum_deployment_target=ct.target.iOS26,
        inputs=[ct.TensorType("x", shape=(2, 3), dtype=np.int8)],
        outputs=[ct.TensorType("y", dtype=np.int8)],
    )


def with_several_functions(folder):
    """The path of a package whose functions ``first`` and ``second``, the default one, are the same."""
    from coremltools.models.utils import MultiFunctionDescriptor, save_multifunction

    plain().save(str(folder / "one.mlpackage"))
    described = MultiFunctionDescriptor()
    for name in ("first", "second"):
        described.add_function(str(folder / "one.mlpackage"), "main", name)
    described.default_function_name = "second"
    save_multifunction(described, str(folder / "several.mlpackage"))
    return folder / "several.mlpackage"


def a_pipeline():
    """Of two programs: ``x`` becomes ``h``, and ``h`` becomes ``y``."""
    import coremltools as ct
    from coremltools.converters.mil.mil import Builder as mb  # noqa: N813

    def part(given, result):
        @mb.program(input_specs=[mb.TensorSpec((2, 3))], opset_version=ct.target.iOS16)
        def network(x):
            return mb.add(x=x, y=np.full((2, 3), 0.5, np.float32), name=result)

        model = ct.convert(network, minimum_deployment_target=ct.target.iOS16)
        spec = model.get_spec()
        ct.utils.rename_feature(spec, "x", given)
        return ct.models.MLModel(spec, weights_dir=model.weights_dir, skip_model_load=True)

    return ct.utils.make_pipeline(part("x", "h"), part("h", "y"))


MADE = [
    with_a_default, of_unknown_rank, with_a_loop, with_a_list_in_nested_blocks, with_small_integers,
    plain, of_ios15, with_an_image, with_enumerated_shapes, with_ranges, with_a_classifier, with_a_state,
    palettized, in_four_bits, pruned,
]  # fmt: skip
