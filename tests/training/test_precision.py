"""Training in half precision and compiled: the update stays what it is."""

import contextlib
import copy

import pytest
import torch
from helpers import go_on, start

import train
from losses import LOSSES, REGULARIZERS, finite_difference
from models import build_models
from training.checkpoints import checkpoint
from training.objective import Batch, Objective
from utils.precision import FULL, Precision

CPU = torch.device("cpu")


@contextlib.contextmanager
def recorded_dtypes(network):
    """The dtypes that a network's convolutions and linear layers put out."""
    found = []
    layers = [m for m in network.modules() if isinstance(m, (torch.nn.Linear, torch.nn.Conv2d))]
    hooks = [m.register_forward_hook(lambda module, inputs, output: found.append(output.dtype)) for m in layers]
    yield found
    for hook in hooks:
        hook.remove()


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
    train.discriminator_step(G, D, optimizer, Batch(z, real, alpha), objective, Precision("bf16", CPU))
    assert set(seen) == {torch.float32} and set(at_penalty) <= {torch.float32}
    if regularizer == "none":  # one forward: u and v are those of a float32 one, bit for bit
        twin_D(torch.cat([real, real]))
        for name, buffer in D.named_buffers():
            assert buffer.dtype == torch.float32 and torch.equal(buffer, dict(twin_D.named_buffers())[name])
    assert all(p.grad.dtype == torch.float32 for p in D.parameters())


@pytest.mark.parametrize("precision", [FULL, Precision("bf16", CPU)], ids=["full", "half"])
def test_finite_differences_start_from_logits_of_full_precision(precision):
    torch.manual_seed(0)
    G, D = build_models("dcgan", 16, 1, 8, 4)
    real, noise = torch.rand(4, 1, 16, 16), torch.randn(4, 1, 16, 16)
    optimizer = torch.optim.SGD(D.parameters(), lr=0.0)
    objective = Objective(
        lambda real, fake: 0 * real.sum(), LOSSES["hinge"][1], ((REGULARIZERS["approximate_r1"], 1.0),)
    )
    with recorded_dtypes(D) as dtypes:
        loss, *_ = train.discriminator_step(
            G, D, optimizer, Batch(torch.randn(4, 8), real, noise=noise), objective, precision
        )
    forwards = [torch.float32] * 2 if precision is FULL else [torch.bfloat16, torch.float32, torch.float32]
    assert dtypes[:: len(dtypes) // len(forwards)] == forwards
    D.eval()
    exact = finite_difference(D.double(), real.double(), noise.double())
    assert loss.item() == pytest.approx(exact.item(), rel=1e-3)


def test_the_flags_for_cuda_change_nothing_on_a_cpu_and_say_so(tmp_path, no_pictures, capsys):
    plain = checkpoint.read(train.train(start(tmp_path, "plain", total_steps=2)))
    assert "no effect" not in capsys.readouterr().out
    flags = {"amp": "fp16", "tf32": True, "compile": True}
    path = train.train(start(tmp_path, "fast", total_steps=2, device="cpu", **flags))
    assert "no effect on a CPU: --tf32 and --compile and --amp fp16" in capsys.readouterr().out
    content = checkpoint.read(path)
    assert content["config"]["amp"] == "fp16"
    assert all(torch.equal(value, content["G"][name]) for name, value in plain["G"].items())
    assert checkpoint.read(go_on(tmp_path, "fast", total_steps=3))["step"] == 3


@pytest.mark.parametrize(
    ("model", "backend"), [pytest.param("dcgan", "eager", marks=pytest.mark.slow), ("resnet", "aot_eager")]
)
def test_compiled_networks_make_the_same_step(model, backend):
    results = []
    for compiled in (False, True):
        torch.manual_seed(0)
        G, D = (net.double() for net in build_models(model, 16, 1, 8, 4, g_sn=True))
        names = list(D.state_dict())
        if compiled:
            G.compile(backend=backend)
            D.compile(backend=backend)
        opt_G, opt_D = (torch.optim.Adam(net.parameters(), 1e-3, fused=True) for net in (G, D))
        for _ in range(2):
            real, z = torch.rand(4, 1, 16, 16).double(), torch.randn(4, 8).double()
            penalised = Objective(*LOSSES["hinge"], ((REGULARIZERS["approximate_r1"], 1.0),))
            train.discriminator_step(G, D, opt_D, Batch(z, real, noise=torch.randn(4, 1, 16, 16).double()), penalised)
            train.generator_step(G, D, opt_G, Batch(z), Objective(*LOSSES["hinge"]))
        assert list(D.state_dict()) == names
        results.append([*G.state_dict().values(), *D.state_dict().values()])
    # Compiled layers may sum in another order, which Adam would enlarge in float32 where a gradient is nearly zero.
    assert all(torch.allclose(a, b, rtol=0, atol=1e-9) for a, b in zip(*results, strict=True))
