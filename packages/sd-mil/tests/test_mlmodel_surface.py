"""``from sd_mil import MLModel`` is the whole change: attribute by attribute against coremltools' own."""

import inspect

import coremltools_makes as made
import numpy as np
import pytest
from sd_mil import EngineError, MetadataError, MLModel, PackageError, PredictionError, read_package

ct = pytest.importorskip("coremltools", exc_type=ImportError)

pytestmark = [  # coremltools leaves its temporary folders to the garbage collector
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

TEXTS = ("short_description", "author", "license", "version")
#: What makes and follows programs of coremltools' converter, and has no meaning for a model from a file.
CONVERTERS_OWN = {"mil_program", "is_temp_package"}


MAKES = {
    make.__name__: make
    for make in (
        made.plain,
        made.with_an_image,
        made.with_a_classifier,
        made.with_a_state,
        made.palettized,
        made.a_pipeline,
    )
}


@pytest.fixture(scope="module")
def packages(tmp_path_factory):
    folder = tmp_path_factory.mktemp("surface")
    found = {}
    for name, make in MAKES.items():
        model = make()
        for text in TEXTS:
            setattr(model, text, f"the {text} of {name}")
        model.user_defined_metadata["key"] = "value"
        for side in (model.input_description, model.output_description):
            for feature in side:
                side[feature] = f"what {feature} is"
        model.save(str(folder / f"{name}.mlpackage"))
        found[name] = folder / f"{name}.mlpackage"
    found["several"] = made.with_several_functions(folder)
    return found


@pytest.fixture(params=[*MAKES, "several"])
def path(packages, request):
    return str(packages[request.param])


def theirs(path, **options):
    return ct.models.MLModel(path, skip_model_load=True, **options)


def ours(path, **options):
    return MLModel(path, "reference", **options)


def test_no_public_name_of_coremltools_is_missing(packages):
    model = theirs(str(packages["plain"]))
    public = {name for name in dir(model) if not name.startswith("_")}
    assert public <= set(dir(ours(packages["plain"])))
    arguments = set(inspect.signature(ct.models.MLModel.__init__).parameters) - CONVERTERS_OWN
    assert arguments <= set(inspect.signature(MLModel.__init__).parameters)


def test_texts_and_features_are_the_same(path):
    expected, got = theirs(path), ours(path)
    for text in TEXTS:
        assert getattr(got, text) == getattr(expected, text)
    assert dict(got.user_defined_metadata) == dict(expected.user_defined_metadata)
    for side in ("input_description", "output_description"):
        described = getattr(expected, side)
        if len(described):  # coremltools says nothing of a package with several functions
            features = {name: described[name] for name in described}
            assert dict(getattr(got, side)) == features
            assert repr(getattr(got, side)) == repr(described)
    for name in (
        "function_name",
        "is_package",
        "is_temp_package",
        "package_path",
        "weights_dir",
        "optimization_hints",
    ):
        assert getattr(got, name) == getattr(expected, name), name
    assert ours(path, compute_units=ct.ComputeUnit.CPU_ONLY).compute_unit == ct.ComputeUnit.CPU_ONLY


def test_the_specification_is_the_same(path):
    assert ours(path).get_spec() == theirs(path).get_spec()


def changed(model):
    model.short_description, model.author, model.license, model.version = "a", "b", "c", "4 ü"
    model.user_defined_metadata["more"] = "of it"
    for name in sorted(model.user_defined_metadata)[:1]:
        del model.user_defined_metadata[name]
    for side in (model.input_description, model.output_description):
        for name in side:
            side[name] = f"{name}, again"
    return model


def contents(package):
    """Of all files but the message, which protobuf does not write in one order, by their paths inside."""
    files = (file for file in package.rglob("*") if file.is_file() and file.name != "model.mlmodel")
    return {file.relative_to(package): file.read_bytes() for file in files}


def test_changed_texts_are_saved(path, tmp_path):
    expected, got = changed(theirs(path)), ours(path)
    got = changed(got)
    expected.save(str(tmp_path / "theirs.mlpackage"))
    got.save(tmp_path / "ours")
    if "several" in path:  # coremltools has no names of features there
        assert ours(tmp_path / "ours.mlpackage").input_description["x"] == "x, again"
        assert ours(tmp_path / "ours.mlpackage", function_name="first").input_description["x"] == ""
        got = ours(path)
        for text in TEXTS:
            setattr(got, text, getattr(expected, text))
        got.user_defined_metadata.clear()
        got.user_defined_metadata.update(dict(expected.user_defined_metadata))
        got.save(tmp_path / "ours")
    assert got.get_spec() == expected.get_spec()
    again = theirs(str(tmp_path / "ours.mlpackage"))
    assert again.get_spec() == expected.get_spec()
    assert again.author == got.description.author == "b"
    same = [contents(tmp_path / f"{name}.mlpackage") for name in ("theirs", "ours")]
    assert same[0] == same[1]


def test_a_specification_with_its_weights_is_a_model(packages):
    path = str(packages["plain"])
    spec = theirs(path).get_spec()
    ct.utils.rename_feature(spec, "x", "pixels")
    x = np.linspace(0, 1, 768, dtype=np.float32).reshape(1, 3, 16, 16)
    renamed = MLModel(spec, "reference", weights_dir=theirs(path).weights_dir)
    assert renamed.is_temp_package
    (name,) = renamed.outputs
    np.testing.assert_array_equal(renamed.predict({"pixels": x})[name], ours(path).predict({"x": x})[name])
    again = MLModel(renamed.get_spec(), "reference", weights_dir=renamed.weights_dir)
    np.testing.assert_array_equal(again.predict({"pixels": x})[name], renamed.predict({"pixels": x})[name])
    with pytest.raises(PackageError, match="expected the file 'weights/weight"):
        MLModel(spec, "reference")
    with pytest.raises(PackageError, match="expected weights_dir to be a folder, got '/nowhere'"):
        MLModel(spec, "reference", weights_dir="/nowhere")


def test_a_model_from_memory_is_written_when_its_files_are_asked_for(packages, tmp_path):
    path = str(packages["plain"])
    model = MLModel(read_package(path), "reference")
    assert model.is_temp_package
    assert model.get_spec() == theirs(path).get_spec()
    model.author = "somebody"
    model.save(tmp_path / "saved.mlpackage")
    assert theirs(str(tmp_path / "saved.mlpackage")).author == "somebody"


def test_what_predict_takes(packages):
    model = ours(packages["plain"])
    x = np.linspace(-1, 1, 768, dtype=np.float32).reshape(1, 3, 16, 16)
    (name,) = model.outputs
    expected = model.predict({"x": x})[name]
    torch = pytest.importorskip("torch")
    learning = torch.tensor(x, requires_grad=True)
    for given in (x.tolist(), x.astype(np.float64), torch.from_numpy(x), learning):
        np.testing.assert_array_equal(model.predict({"x": given})[name], expected)
    batch = model.predict([{"x": x}, {"x": -x}])
    assert len(batch) == 2
    np.testing.assert_array_equal(batch[0][name], expected)
    np.testing.assert_array_equal(batch[1][name], model.predict({"x": -x})[name])
    assert model.predict([]) == []


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            [{"x": np.zeros((1, 3, 16, 16), np.float32)}, 3],
            "expected a dictionary of inputs or a list of some",
        ),
        ("x", "expected a dictionary of inputs or a list of some, got str"),
        ({"x": [[1, 2], [3]]}, r"expected float32\[1, 3, 16, 16\], got list for input 'x': setting an array"),
        ({"x": np.full((1, 3, 16, 16), 1e300)}, r"with 1e\+300, which float32 does not hold"),
        ({"x": np.full((1, 3, 16, 16), 1j)}, r"got complex128\[.*; cast it with"),
    ],
)
def test_what_predict_does_not_take(packages, given, message):
    with pytest.raises(PredictionError, match=message):
        ours(packages["plain"]).predict(given)


def test_pictures(packages):
    pillow = pytest.importorskip("PIL.Image")
    model = ours(packages["with_an_image"])
    picture = pillow.fromarray(np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8))
    one, two = model.predict([{"x": picture}, {"x": np.asarray(picture)}])
    (name,) = model.outputs
    np.testing.assert_array_equal(one[name], two[name])


def test_states(packages):
    model = ours(packages["with_a_state"])
    state = model.make_state()
    ones = np.ones((2, 3), np.float32)
    assert [float(model.predict({"x": ones}, state=state)["y"].max()) for _ in range(3)] == [1, 2, 3]
    (name,) = model.states
    np.testing.assert_array_equal(state.read_state(name), 3 * ones)
    state.write_state(name, np.zeros((2, 3), np.float16))
    assert model.predict({"x": ones}, state)["y"].max() == 1
    with pytest.raises(PredictionError, match="expected one dictionary of inputs with a state"):
        model.predict([{"x": ones}], state)


def test_without_loading_it_says_and_saves_and_does_not_predict(packages, tmp_path):
    model = MLModel(packages["plain"], skip_model_load=True)
    assert model.load_duration_in_nano_seconds is None
    model.save(tmp_path / "copy")
    for ask in (lambda: model.predict({"x": 1}), lambda: model.make_state(), lambda: model.arithmetic):
        with pytest.raises(
            EngineError, match="expected a model that was loaded, got one with skip_model_load"
        ):
            ask()


def test_durations(packages):
    model = ours(packages["with_a_classifier"])
    assert model.load_duration_in_nano_seconds > 0
    assert model.last_predict_duration_in_nano_seconds is None
    model.predict({"x": [[1, 2, 3]]})
    assert model.last_predict_duration_in_nano_seconds > 0


@pytest.mark.parametrize("side", ["input_description", "output_description"])
def test_features_are_those_of_the_model(packages, side):
    described = getattr(ours(packages["plain"]), side)
    for ask in (lambda: described["z"], lambda: described.__setitem__("z", "text")):
        with pytest.raises(MetadataError, match=r"^expected one of \['\w+'\], got 'z'$") as raised:
            ask()
        assert isinstance(raised.value, KeyError)


def test_texts_are_texts(packages):
    model = ours(packages["plain"])
    for change in (
        lambda: setattr(model, "author", 3),
        lambda: model.user_defined_metadata.update(key=3),
        lambda: model.user_defined_metadata.update({3: "text"}),
        lambda: model.input_description.__setitem__("x", None),
    ):
        with pytest.raises(MetadataError, match="expected a text for"):
            change()


def test_what_only_a_mac_has_is_an_error_that_says_so(packages):
    model = ours(packages["plain"])
    with pytest.raises(EngineError, match=r"compiled.*got the engine reference; sd_mil\.compile_model"):
        model.get_compiled_model_path()
    with pytest.raises(EngineError, match="expected no optimization_hints for the engine reference"):
        ours(packages["plain"], optimization_hints={"allowLowPrecisionAccumulationOnGPU": True})
    with pytest.raises(EngineError, match=r"expected compute_units to be one of 'ALL', .*, got 'NPU'"):
        ours(packages["plain"], compute_units="NPU")


def test_saving_takes_the_place_of_models_and_of_nothing_else(packages, tmp_path):
    model = ours(packages["plain"])
    target = tmp_path / "model.mlpackage"
    model.save(target)
    again = ours(target)
    again.author = "the second"
    again.save(target)  # where it was read from
    assert ours(target).author == "the second"
    folder = tmp_path / "folder.mlpackage"
    (folder / "thesis").mkdir(parents=True)
    with pytest.raises(PackageError, match="expected a package to replace, got the folder"):
        model.save(folder)
    with pytest.raises(PackageError, match=r"expected a path that ends in \.mlpackage"):
        model.save(tmp_path / "model.mlmodel")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder.mlpackage", "model.mlpackage"]
