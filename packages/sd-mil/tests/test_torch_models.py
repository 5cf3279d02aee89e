"""torch modules through coremltools' own front end, on both engines, against torch.

Few models with many operations each: a conversion takes a second.
"""

import logging

import numpy as np
import pytest
from sd_mil import MLModel, psnr

torch = pytest.importorskip("torch")
ct = pytest.importorskip("coremltools", exc_type=ImportError)
F, nn = torch.nn.functional, torch.nn

pytestmark = [
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.usefixtures("quiet"),
]

FP16, FP32 = ct.precision.FLOAT16, ct.precision.FLOAT32
ENOUGH = {FP16: 45, FP32: 90}


@pytest.fixture(scope="module")
def quiet():
    logger = logging.getLogger("coremltools")
    level = logger.level
    logger.setLevel(logging.ERROR)
    yield
    logger.setLevel(level)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("torch")


@pytest.fixture(params=["reference", "portable"])
def engine(request):
    if request.param == "portable":
        pytest.importorskip("openvino")
    return request.param


class Several(nn.Module):
    """A function of modules, as a module; what it returns becomes a tuple of floats and integers."""

    def __init__(self, function, **modules):
        super().__init__()
        self.parts = nn.ModuleDict(modules)
        self.function = function

    def forward(self, *inputs):
        return tuple(self.function(self.parts, *inputs))


def randn(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def convert(module, inputs, path, *, target, precision, script=False, types=None, **options):
    module = module.eval()
    traced = torch.jit.script(module) if script else torch.jit.trace(module, inputs, check_trace=False)
    given = types or [
        ct.TensorType(f"in{i}", one.shape, dtype=np.float32 if one.is_floating_point() else np.int32)
        for i, one in enumerate(inputs)
    ]
    made = ct.convert(
        traced,
        inputs=given,
        convert_to="mlprogram",
        minimum_deployment_target=getattr(ct.target, target),
        compute_precision=precision,
        skip_model_load=True,
        **options,
    )
    made.save(str(path))
    return path


def arrays(model, inputs):
    ports = zip(model.inputs.values(), inputs, strict=True)
    return {port.name: one.numpy().astype(port.dtype) for port, one in ports}


def agree(model, module, inputs, enough):
    with torch.no_grad():
        expected = module(*inputs)
    expected = expected if isinstance(expected, tuple) else (expected,)
    got = model.predict(arrays(model, inputs)).values()
    for place, (value, wanted) in enumerate(zip(got, expected, strict=True)):
        wanted = wanted.numpy()
        assert np.size(value) == wanted.size, place
        level = psnr(wanted, np.asarray(value).reshape(wanted.shape))
        assert level >= enough, f"output {place}: {level:.1f} dB"


def elementwise(_, x):
    positive = x.abs() + 0.1
    yield from (F.relu6(x * 4), F.leaky_relu(x, 0.2), F.elu(x, 1.5), F.gelu(x), F.gelu(x, approximate="tanh"))
    yield from (F.silu(x), F.softplus(x), F.hardswish(x), F.hardsigmoid(x), F.mish(x), F.softsign(x))
    yield from (positive.log(), positive.rsqrt(), positive.sqrt(), x.exp(), torch.erf(x), x.sin(), x.tanh())
    yield from (x.clamp(-0.5, 0.5), x.sign(), x.floor(), torch.where(x > 0, x, -2 * x), positive.pow(1.5))
    yield from (x.softmax(1), F.log_softmax(x, -1), x.cumsum(1), x.logsumexp(1), x.var(1), x.norm(dim=2))
    yield from (x.sum((1, 2)), x.mean(0), x.amax(1), x.argmax(2).float(), torch.atan2(x, positive))


def layers(parts, x):
    yield from (layer(x) for layer in parts.values())
    yield from (F.pad(x, (1, 2, 3, 0), mode) for mode in ("constant", "reflect", "replicate"))
    yield from (F.pixel_shuffle(x, 2), F.pixel_unshuffle(x[:, :, :8, :8], 2), F.normalize(x, dim=1))
    yield F.fold(F.unfold(x[:, :, :8, :8], 2, stride=2), (8, 8), 2, stride=2)


LAYERS = {
    "grouped": lambda: nn.Conv2d(4, 8, 3, stride=2, padding=1, dilation=2, groups=2),
    "up": lambda: nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1, groups=2),
    "same": lambda: nn.Conv2d(4, 4, (2, 4), padding="same"),
    "batch": lambda: nn.BatchNorm2d(4),
    "instance": lambda: nn.InstanceNorm2d(4, affine=True),
    "group": lambda: nn.GroupNorm(2, 4),
    "layer": lambda: nn.LayerNorm([9, 11]),
    "max": lambda: nn.MaxPool2d(3, 2, 1, ceil_mode=True),
    "avg": lambda: nn.AvgPool2d(3, 2, 1, ceil_mode=True),
    "uncounted": lambda: nn.AvgPool2d(3, 2, 1, count_include_pad=False),
    "adaptive": lambda: nn.AdaptiveAvgPool2d(1),
    "local": lambda: nn.LocalResponseNorm(3),
    "prelu": lambda: nn.PReLU(4),
}


def resizing(_, x, grid):
    for align in (True, False):
        yield F.interpolate(x, (11, 13), mode="bilinear", align_corners=align)
        yield F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=align)
        for mode, padding in (("bilinear", "zeros"), ("nearest", "border"), ("bilinear", "reflection")):
            yield F.grid_sample(x, grid, mode, padding, align_corners=align)
    yield F.interpolate(x, scale_factor=(1.5, 2.5), mode="bilinear", recompute_scale_factor=True)
    yield F.interpolate(x, scale_factor=3, mode="nearest")
    yield F.interpolate(x, (10, 14), mode="nearest")


def indexing(_, x, ids):
    yield from (x[ids], x[:, ids], x[1, ..., ::2], x[:, :, [0, 2]], x.index_select(2, ids), x.flip((0, 2)))
    yield x.gather(1, ids.reshape(1, -1, 1).expand(3, -1, 4))
    yield torch.zeros(3, 5, 4).scatter_add(1, ids.reshape(1, -1, 1).expand(3, -1, 4), x[:, :3])
    yield torch.zeros(3, 5, 4).index_put((torch.tensor([0, 2]), torch.tensor([1, 1])), x[:2, 0])
    values, places = x.topk(2, dim=1)
    yield from (values, places.float(), *(one.float() for one in x.sort(dim=1, descending=True)))
    yield from (x.argsort(2).float(), F.one_hot(ids, 5).float(), x.triu(1), x.roll(1, 2), x.repeat(1, 2, 1))
    yield from (
        x.permute(1, 2, 0),
        torch.stack([x, x], 1),
        *x.chunk(2, 2),
        x.masked_fill(x > 0, 3),
    )
    yield from (
        torch.einsum("bij,bkj->bik", x, x),
        torch.einsum("bij,jk->bki", x, x[0, :4]),
        x @ x.transpose(1, 2),
    )


def sequences(parts, x, h, c):
    outputs, (h_n, c_n) = parts["lstm"](x, (h, c))
    yield from (outputs, h_n, c_n)
    yield from parts["gru"](outputs)
    yield from parts["rnn"](x)
    yield parts["attention"](outputs, outputs, outputs, need_weights=False)[0]


SEQUENCES = {
    "lstm": lambda: nn.LSTM(6, 8, 2, bidirectional=True, batch_first=True),
    "gru": lambda: nn.GRU(16, 5, 1, bidirectional=True, batch_first=True),
    "rnn": lambda: nn.RNN(6, 5, 2, batch_first=True, nonlinearity="relu"),
    "attention": lambda: nn.MultiheadAttention(16, 4, batch_first=True),
}

MODELS = {
    "elementwise": (elementwise, {}, (randn(2, 3, 5),)),
    "layers": (layers, LAYERS, (randn(1, 4, 9, 11),)),
    "resizing": (resizing, {}, (randn(1, 2, 5, 7), randn(1, 4, 6, 2))),
    "indexing": (indexing, {}, (randn(3, 5, 4), torch.tensor([2, 0, 1]))),
    "sequences": (sequences, SEQUENCES, (randn(2, 7, 6), randn(4, 2, 8), randn(4, 2, 8))),
}
FORMS = [
    ("elementwise", "iOS15", FP32),
    ("elementwise", "iOS18", FP16),
    ("layers", "iOS16", FP32),
    ("layers", "iOS17", FP16),
    ("resizing", "iOS16", FP32),
    ("resizing", "iOS17", FP32),
    ("indexing", "iOS15", FP32),
    ("indexing", "iOS18", FP32),
    ("sequences", "iOS15", FP32),
    ("sequences", "iOS17", FP16),
]


@pytest.fixture(scope="module")
def made(folder):
    """Each model once for both engines."""
    known = {}

    def model(name, target, precision):
        if (name, target, precision) not in known:
            torch.manual_seed(0)
            function, parts, inputs = MODELS[name]
            module = Several(function, **{key: make() for key, make in parts.items()})
            path = folder / f"{name}{target}.mlpackage"
            known[name, target, precision] = (
                convert(module, inputs, path, target=target, precision=precision),
                module,
                inputs,
            )
        return known[name, target, precision]

    return model


@pytest.mark.parametrize(
    ("name", "target", "precision"), FORMS, ids=[f"{one}-{two}" for one, two, _ in FORMS]
)
def test_many_operations(made, engine, name, target, precision):
    path, module, inputs = made(name, target, precision)
    agree(MLModel(path, engine), module, inputs, ENOUGH[precision])


class Loop(nn.Module):
    def forward(self, x: torch.Tensor, count: torch.Tensor) -> torch.Tensor:
        i = torch.zeros(1, dtype=torch.int32)
        while bool(i < count):
            x = x * -1.5 if bool(x.sum() > 0) else x + 2.0
            i = i + 1
        return x


def test_a_scripted_loop(folder, engine):
    inputs = (randn(2, 3), torch.tensor([5], dtype=torch.int32))
    types = [ct.TensorType("in0", (2, 3)), ct.TensorType("in1", (1,), dtype=np.int32)]
    path = folder / f"loop{engine}.mlpackage"
    convert(Loop(), inputs, path, target="iOS16", precision=FP32, script=True, types=types)
    model = MLModel(path, engine)
    for count in (0, 1, 5):
        agree(model, Loop(), (inputs[0], torch.tensor([count], dtype=torch.int32)), 100)


class Flexible(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.linear = nn.Conv2d(3, 4, 3, 2, 1), nn.Linear(4, 5)

    def forward(self, x):
        y = F.relu(self.conv(x))
        y = F.interpolate(y, scale_factor=2, mode="nearest") + y.mean((2, 3), keepdim=True)
        return self.linear(y.flatten(2).transpose(1, 2)).softmax(-1)


@pytest.mark.parametrize("kind", ["range", "enumerated"])
def test_flexible_shapes(folder, engine, kind):
    torch.manual_seed(0)
    module, path = Flexible().eval(), folder / f"{kind}{engine}.mlpackage"
    sizes = [(1, 3, 8, 8), (1, 3, 12, 16)]
    if kind == "range":
        shape = ct.Shape((1, 3, ct.RangeDim(4, 32, default=8), ct.RangeDim(4, 32, default=8)))
    else:
        shape = ct.EnumeratedShapes(sizes, default=sizes[0])
    types = [ct.TensorType("in0", shape)]
    convert(module, (randn(*sizes[0]),), path, target="iOS16", precision=FP32, types=types)
    model = MLModel(path, engine)
    for size in sizes:
        agree(model, module, (randn(*size),), 90)


class Remembering(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("seen", torch.zeros(4, 3))

    def forward(self, x):
        self.seen[1:3] += x
        y = self.seen * 2
        self.seen.add_(0.5)
        return y.sum(1)


def test_a_state_that_torch_keeps_as_a_buffer(folder, engine):
    path, x = folder / f"state{engine}.mlpackage", randn(2, 3)
    seen = ct.StateType(ct.TensorType(shape=(4, 3), dtype=np.float16), name="seen")
    types = [ct.TensorType("in0", (2, 3), dtype=np.float16)]
    convert(Remembering(), (x,), path, target="iOS18", precision=FP16, types=types, states=[seen])
    model, module = MLModel(path, engine), Remembering().eval()
    state = model.make_state()
    for _ in range(3):
        (got,) = model.predict(arrays(model, (x,)), state).values()
        assert psnr(module(x).numpy(), got) > 45
    assert psnr(module.seen.numpy(), state.read_state("seen")) > 45


def test_a_picture_with_scale_and_bias(folder, engine):
    torch.manual_seed(0)
    module, path = nn.Conv2d(3, 2, 3).eval(), folder / f"image{engine}.mlpackage"
    types = [ct.ImageType("in0", (1, 3, 6, 8), scale=1 / 64, bias=[-2, -1.5, -1])]
    convert(module, (randn(1, 3, 6, 8),), path, target="iOS16", precision=FP32, types=types)
    pixels = np.random.default_rng(0).integers(0, 256, (6, 8, 3)).astype(np.uint8)
    planes = torch.from_numpy(pixels.astype(np.float32)).permute(2, 0, 1)[None]
    with torch.no_grad():
        expected = module(planes / 64 + torch.tensor([-2, -1.5, -1]).reshape(1, 3, 1, 1)).numpy()
    (got,) = MLModel(path, engine).predict({"in0": pixels}).values()
    assert psnr(expected, got) > 90


def text_encoder(transformers):
    config = transformers.CLIPTextConfig(
        vocab_size=99,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=20,
        eos_token_id=98,
        bos_token_id=97,
    )
    made = transformers.CLIPTextModel._from_config(config, attn_implementation="eager")
    ids = torch.arange(20).reshape(1, 20) % 98
    return Several(lambda parts, x: parts["m"](input_ids=x, return_dict=False)[:2], m=made), (ids,)


def speech_encoder(transformers):
    config = transformers.WhisperConfig(
        vocab_size=99,
        d_model=32,
        encoder_layers=2,
        decoder_layers=1,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=64,
        decoder_ffn_dim=64,
        num_mel_bins=8,
        max_source_positions=30,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=1,
    )
    made = transformers.WhisperModel._from_config(config, attn_implementation="eager").encoder
    return Several(lambda parts, x: parts["m"](x, return_dict=False)[:1], m=made), (randn(1, 8, 60),)


@pytest.mark.parametrize("architecture", [text_encoder, speech_encoder])
def test_architectures(folder, architecture):
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    module, inputs = architecture(transformers)
    path = folder / f"{architecture.__name__}.mlpackage"
    convert(module, inputs, path, target="iOS18", precision=FP16)
    for engine in ("reference", "portable"):
        if engine == "portable":
            pytest.importorskip("openvino")
        agree(MLModel(path, engine), module, inputs, 55)
