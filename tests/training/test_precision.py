"""How a step computes: half precision around the networks, nothing that waits for a device, memory that is kept."""

import contextlib
import copy
import subprocess
import sys

import pytest
import torch
from helpers import ROOT, SMALL
from torch.utils._python_dispatch import TorchDispatchMode

import train
from datasets.images import Images
from losses import LOSSES, REGULARIZERS
from models import build_models
from training import checkpoint
from training.monitor import total_norm
from training.objective import Batch, Objective
from training.resume import prepare
from training.state import State
from utils.files import save
from utils.precision import FULL, Precision, keep_memory, set_tf32, without_tf32

CPU = torch.device("cpu")


def half():
    """What --amp bf16 is on CUDA, on the CPU."""
    precision = Precision("none", CPU)
    precision.dtype = torch.bfloat16
    return precision


@contextlib.contextmanager
def recorded_dtypes(network):
    """The dtypes that a network's convolutions and linear layers put out."""
    found = []
    layers = [m for m in network.modules() if isinstance(m, (torch.nn.Linear, torch.nn.Conv2d))]
    hooks = [m.register_forward_hook(lambda module, inputs, output: found.append(output.dtype)) for m in layers]
    yield found
    for hook in hooks:
        hook.remove()


@pytest.mark.parametrize("amp", ["none", "bf16", "fp16"])
def test_on_a_cpu_every_choice_of_amp_is_full_precision(amp):
    precision = Precision(amp, CPU)
    D = torch.nn.Linear(3, 1)
    x = torch.randn(2, 3)
    assert torch.equal(precision.call(D, x), D(x)) and precision.state_dict() == {}


def test_half_precision_computes_the_layers_and_hands_back_float32():
    _, D = build_models("dcgan", 16, 1, 8, 4)
    with recorded_dtypes(D) as dtypes:
        logits = half().call(D, torch.randn(4, 1, 16, 16))
    assert set(dtypes) == {torch.bfloat16} and logits.dtype == torch.float32


@pytest.mark.parametrize("regularizer", ["none", "gradient_penalty", "r1"])
def test_losses_penalties_and_power_iteration_stay_in_float32_under_half_precision(regularizer):
    torch.manual_seed(0)
    G, D = build_models("dcgan", 16, 1, 8, 4)
    twin_D = copy.deepcopy(D)
    seen, at_penalty = [], []

    def loss(real_logits, fake_logits):
        seen.extend([real_logits.dtype, fake_logits.dtype])
        return LOSSES["hinge"][0](real_logits, fake_logits)

    chosen = REGULARIZERS[regularizer]
    if chosen.penalty:

        def penalty(D, *args, original=chosen.penalty):
            with recorded_dtypes(D) as dtypes:
                value = original(D, *args)
            at_penalty.extend([*dtypes, value.dtype])
            return value

        chosen = chosen._replace(penalty=penalty)
    real, z, alpha = torch.rand(4, 1, 16, 16), torch.randn(4, 8), torch.rand(4, 1, 1, 1)
    optimizer = torch.optim.SGD(D.parameters(), lr=0.0)
    objective = Objective(loss, LOSSES["hinge"][1], ((chosen, 1.0),))
    train.discriminator_step(G, D, optimizer, Batch(z, real, alpha), objective, half())
    assert set(seen) == {torch.float32} and set(at_penalty) <= {torch.float32}
    if regularizer == "none":  # one forward: u and v are those of a float32 one, bit for bit
        twin_D(torch.cat([real, real]))
        for name, buffer in D.named_buffers():
            assert buffer.dtype == torch.float32 and torch.equal(buffer, dict(twin_D.named_buffers())[name])
    assert all(p.grad.dtype == torch.float32 for p in D.parameters())


def test_a_scaled_update_is_the_plain_one_and_an_overflow_is_skipped():
    torch.manual_seed(0)
    plain, scaled = torch.nn.Linear(3, 1), torch.nn.Linear(3, 1)
    scaled.load_state_dict(plain.state_dict())
    precision = Precision("none", CPU)
    precision.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    x = torch.randn(4, 3)
    for network, how in ((plain, FULL), (scaled, precision)):
        how.backward(network(x).square().mean())
        how.update(torch.optim.Adam(network.parameters(), 0.1, fused=True))
    assert total_norm(plain).item() == pytest.approx(total_norm(scaled).item(), rel=1e-5)  # what is logged
    assert torch.allclose(plain.weight, scaled.weight, atol=1e-7) and precision.scaler.get_scale() == 2.0**10
    before = scaled.weight.detach().clone()
    scaled.zero_grad()
    precision.backward(scaled(x).sum() * 1e38)
    precision.update(torch.optim.SGD(scaled.parameters(), 0.1))
    assert torch.equal(scaled.weight, before) and precision.scaler.get_scale() == 2.0**9
    restored = Precision("none", CPU)
    restored.scaler = torch.amp.GradScaler("cpu")
    restored.load_state_dict(precision.state_dict())
    assert restored.scaler.get_scale() == 2.0**9


def start(tmp_path, name="run", **flags):
    return prepare({**SMALL, "run_dir": str(tmp_path / name), "total_steps": 2, **flags})


def test_the_flags_for_cuda_change_nothing_on_a_cpu_and_say_so(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("training.monitor.finish_pictures", lambda *args: None)
    plain = checkpoint.load(train.train(start(tmp_path, "plain")))
    assert "without effect" not in capsys.readouterr().out
    flags = {"amp": "fp16", "tf32": True, "compile": True}
    path = train.train(start(tmp_path, "fast", device="cpu", **flags))
    assert "without effect on cpu: --amp and --tf32 and --compile" in capsys.readouterr().out
    content = checkpoint.load(path)
    assert content["config"]["amp"] == "fp16"
    assert all(torch.equal(value, content["G"][name]) for name, value in plain["G"].items())
    resumed = prepare({"resume": str(tmp_path / "fast"), "total_steps": 3})
    assert checkpoint.load(train.train(resumed))["step"] == 3


def test_a_checkpoint_from_before_the_scalers_can_be_resumed(tmp_path, monkeypatch):
    monkeypatch.setattr("training.monitor.finish_pictures", lambda *args: None)
    path = train.train(start(tmp_path))
    content = checkpoint.load(path)
    del content["scalers"]
    for optimizer in ("opt_G", "opt_D"):  # as optimizers were then
        for group in content[optimizer]["param_groups"]:
            group["fused"] = None
    save(path, content)
    resumed = prepare({"resume": str(tmp_path / "run"), "total_steps": 3})
    assert checkpoint.load(train.train(resumed))["step"] == 3


class Waits(TorchDispatchMode):
    """Notes the operations that would make the host wait for a GPU."""

    NAMES = ("_local_scalar_dense", "item", "nonzero", "masked_select", "is_nonzero", "equal", "unique")

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__
        if name in self.NAMES:
            self.found.append(name)
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("regularizer", ["none", "gradient_penalty", "weight_clipping"])
@pytest.mark.parametrize("model", ["dcgan", "resnet"])
def test_no_operation_of_a_step_waits_for_the_device(model, regularizer):
    d_norm = ("none",) if regularizer == "weight_clipping" else ("spectral",)
    flags = {**SMALL, "model": model, "d_norm": d_norm, "regularizer": regularizer, "n_dis": 2, "g_sn": True}
    config = prepare(flags)
    images = Images(torch.randint(0, 256, (40, 1, 8, 8)).to(torch.uint8), torch.zeros(40).long(), ())
    state = State(config, images, CPU)
    train.step(state, config)
    with Waits() as waits:
        train.step(state, config)
    assert waits.found == []
    with Waits() as waits:
        torch.ones(1).item()
    assert waits.found == ["_local_scalar_dense"]


@pytest.mark.parametrize(
    ("model", "backend"), [pytest.param("dcgan", "eager", marks=pytest.mark.slow), ("resnet", "aot_eager")]
)
def test_compiled_networks_make_the_same_step(model, backend):
    results = []
    for compiled in (False, True):
        torch.manual_seed(0)
        G, D = build_models(model, 16, 1, 8, 4, g_sn=True)
        names = list(D.state_dict())
        if compiled:
            G.compile(backend=backend)
            D.compile(backend=backend)
        opt_G, opt_D = (torch.optim.Adam(net.parameters(), 1e-3, fused=True) for net in (G, D))
        for _ in range(2):
            real, z = torch.rand(4, 1, 16, 16), torch.randn(4, 8)
            train.discriminator_step(G, D, opt_D, Batch(z, real), Objective(*LOSSES["hinge"]))
            train.generator_step(G, D, opt_G, Batch(z), Objective(*LOSSES["hinge"]))
        assert list(D.state_dict()) == names
        results.append([*G.state_dict().values(), *D.state_dict().values()])
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(*results, strict=True))


def test_scores_are_in_full_float32_however_the_training_is():
    set_tf32(True)
    with without_tf32():
        assert not (torch.backends.cudnn.allow_tf32 or torch.backends.cuda.matmul.allow_tf32)
    assert torch.backends.cudnn.allow_tf32 and torch.backends.cuda.matmul.allow_tf32
    set_tf32(False)
    assert not (torch.backends.cudnn.allow_tf32 or torch.backends.cuda.matmul.allow_tf32)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's allocator")
def test_kept_memory_is_not_cleared_again_by_the_kernel():
    code = """
import resource, sys, torch
from training.monitor import total_norm
from training.objective import Batch, Objective
from utils.precision import keep_memory
if sys.argv[1] == "keep":
    keep_memory()
faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for i in range(24):
    if i == 12:
        before = faults()
    torch.ones(2**24) + 1  # 64 MiB each
print(faults() - before)
"""
    found = {}
    for how in ("keep", "return"):
        process = subprocess.run(
            [sys.executable, "-c", code, how], cwd=ROOT, capture_output=True, text=True, check=True
        )
        found[how] = int(process.stdout)
    assert found["keep"] < found["return"] / 10


def test_keep_memory_does_nothing_elsewhere(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr("ctypes.CDLL", None)  # calling it would fail
    keep_memory()
