"""How a network is called and updated: in half precision, scaled, on a CPU plainly; TF32, and memory that is kept."""

import math
import platform
import sys

import pytest
import torch
from helpers import layers_of

from models import build_models
from training.monitor import total_norm
from utils.errors import UserError
from utils.precision import FULL, Precision, keep_memory, set_tf32, settled, without_tf32

CPU = torch.device("cpu")


@pytest.mark.parametrize("amp", ["none", "fp16"])
def test_on_a_cpu_fp16_is_full_precision(amp):
    precision = Precision(amp, CPU)
    D = torch.nn.Linear(3, 1)
    x = torch.randn(2, 3)
    assert torch.equal(precision.call(D, x), D(x)) and precision.scaler.state_dict() == {}


@pytest.mark.parametrize("model", ["dcgan", "resnet", "mlp", "r3gan"])
def test_half_precision_computes_the_layers_but_not_the_logits(model):
    _, D = build_models(model, 16, 1, 8, 4)
    dtypes, precision = [], Precision("bf16", CPU)
    for layer in layers_of(D):
        layer.register_forward_hook(lambda module, inputs, output: dtypes.append(output.dtype))
    logits = precision.call(D, torch.randn(4, 1, 16, 16))
    assert set(dtypes[:-1]) == {torch.bfloat16} and dtypes[-1] == logits.dtype == torch.float32
    assert not torch.equal(logits, logits.bfloat16().float())  # which rounding to 8 bits would leave alike


@pytest.mark.parametrize(
    ("amp", "gain", "expected"),
    [("auto", 1.9, "bf16"), ("auto", 0.3, "none"), ("bf16", 1.9, "bf16"), ("none", 1.9, "none"), ("fp16", 1.9, "fp16")],
)
def test_amp_is_settled_by_what_the_processor_gains(monkeypatch, amp, gain, expected):
    monkeypatch.setattr("utils.precision.bf16_gain", lambda: gain)
    assert settled(amp, CPU) == expected


def test_bf16_is_refused_on_a_processor_that_is_slower_in_it(monkeypatch):
    monkeypatch.setattr("utils.precision.bf16_gain", lambda: 0.25)
    with pytest.raises(UserError, match=r"takes 4\.0 times as long in bfloat16 as in float32: use --amp none"):
        settled("bf16", CPU)


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the variable is for x86")
def test_without_the_instructions_bf16_is_slower(forks):
    done = forks.run(
        "import os; os.environ['ONEDNN_MAX_CPU_ISA'] = 'AVX2'; import utils.precision as p; print(p.bf16_gain())"
    )
    assert float(done.stdout) < 0.7


@pytest.mark.parametrize("model", ["dcgan", "resnet", "mlp"])
def test_in_half_precision_pixels_that_are_nearly_black_keep_their_gradient(model):
    G, _ = build_models(model, 16, 1, 8, 4)
    last = [layer for layer in layers_of(G) if layer.bias is not None][-1]
    torch.nn.init.zeros_(last.weight)
    torch.nn.init.constant_(last.bias, -3.6)  # tanh: -0.9985, which bfloat16 rounds to -1
    Precision("bf16", CPU).call(G, torch.randn(4, 8)).sum().backward()
    each = last.bias.grad / (4 * 256 / last.bias.numel())
    torch.testing.assert_close(
        each, torch.full_like(each, 1 - math.tanh(3.59375) ** 2), rtol=0.01, atol=0
    )  # -3.6 in bf16


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


def test_scores_are_in_full_float32_however_the_training_is():
    set_tf32(True)
    with without_tf32():
        assert not (torch.backends.cudnn.allow_tf32 or torch.backends.cuda.matmul.allow_tf32)
    assert torch.backends.cudnn.allow_tf32 and torch.backends.cuda.matmul.allow_tf32
    set_tf32(False)
    assert not (torch.backends.cudnn.allow_tf32 or torch.backends.cuda.matmul.allow_tf32)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's allocator")
def test_kept_memory_is_not_cleared_again_by_the_kernel(forks):
    code = """
import resource, sys, torch
from utils.precision import keep_memory
if sys.argv[1] == "keep":
    keep_memory()
faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for i in range(12):
    if i == 6:
        before = faults()
    torch.ones(2**24) + 1  # 64 MiB each
print(faults() - before)
"""
    keep, give_back = (int(forks.run(code, how).stdout) for how in ("keep", "return"))
    assert keep < give_back / 10


def test_keep_memory_does_nothing_elsewhere(monkeypatch):
    def absent(name):
        raise OSError(f"dlopen({name}): no such file")

    monkeypatch.setattr("ctypes.CDLL", absent)
    keep_memory()
