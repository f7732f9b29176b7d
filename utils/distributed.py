"""Devices and processes. Under torchrun each process is a rank; a single process is rank 0 of 1."""

import contextlib
import datetime
import gc
import os
import re
import signal
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from .console import announced
from .errors import UserError, lost_peer, refuse_if
from .launcher import launched, number, several
from .signals import handled

T = TypeVar("T")
PATIENCE = datetime.timedelta(days=1)  # ranks wait this long for rank 0, which trains the classifier and scores
LEAVING = datetime.timedelta(seconds=3)  # and this long for each other after an error


def accelerators() -> dict[str, int]:
    """Count the devices of each kind that torch finds, without the CPU, in auto's order of preference."""
    cuda = torch.cuda.device_count() if torch.cuda.is_available() else 0
    counts = {"cuda": cuda, "mps": torch.mps.device_count(), "xpu": torch.xpu.device_count()}
    return {kind: count for kind, count in counts.items() if count}


def select_device(name: str) -> torch.device:
    """Return the torch.device that --device names: auto, or a kind of device, with or without a number.

    auto is the first of accelerators(), or the CPU. Several processes need the CPU or CUDA: under torchrun, auto and
    cuda are the GPU of this process's local rank. Raises UserError if the device is unknown, absent or unsuitable.
    """
    known = re.fullmatch(r"auto|cpu|(cuda|mps|xpu)(:\d+)?", name := name.lower())
    refuse_if(not known, f"--device takes auto, cpu, cuda, mps, xpu or one with a number such as cuda:1, not {name!r}")
    found = accelerators()
    usable = [kind for kind in found if kind == "cuda" or not launched()]
    kind, _, index = name.replace("auto", [*usable, "cpu"][0]).partition(":")
    if kind == "cpu":
        return torch.device("cpu")
    there = [f"{kind}:{i}" for kind, count in found.items() for i in range(count)]
    absent = f"--device {name} was asked for, but torch finds only {', '.join(['cpu', *there])} here; use --device auto"
    refuse_if(found.get(kind, 0) <= int(index or 0), absent)
    if launched():
        refuse_if(kind != "cuda", f"--device {name} is for one process: with several, use --device cuda or cpu")
        single = f"--device {name} is one device for several processes: use --device cuda, which gives each its own"
        refuse_if(index, single)
        crowded = f"there are more processes than CUDA devices ({found[kind]}): start one for each, or use --device cpu"
        refuse_if(number("LOCAL_WORLD_SIZE", 1) > found[kind], crowded)
        index = str(number("LOCAL_RANK", 0) % found[kind])
    return torch.device(f"{kind}:{index}" if index else kind)


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def say_once(text: str) -> None:
    """Print a text on rank 0 only."""
    if rank() == 0:
        print(text, flush=True)


def world_size() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


@contextlib.contextmanager
def processes() -> Iterator[None]:
    """Join the other processes that torchrun started, for as long as the context lasts.

    Prints what it waits for if they do not come. Raises UserError if they cannot meet.
    """
    store = _join() if several() else None
    try:
        yield
    except BaseException as error:
        if store:
            _leave(store, error)
        raise
    if store:
        gc.collect()  # networks hold threads of the group, which must not outlive it
        dist.barrier()
        dist.destroy_process_group()


def _join() -> dist.Store:
    """Create the process group. Returns the store through which processes meet and learn of each other's errors."""
    size, place = os.environ["WORLD_SIZE"], f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
    advice = "start them with torchrun or, for a single process, unset WORLD_SIZE and RANK"
    backend = "cpu:gloo"  # for objects, features and signals, which are on the CPU
    if torch.cuda.is_available():
        torch.cuda.set_device(select_device("auto"))
        backend += ",cuda:nccl"
    waiting = f"waiting at {place} for all {size} processes; if there are no others, {advice}"
    try:
        # The wait is outside Python, and would not notice Ctrl-C.
        with announced(waiting, every_rank=True), handled({signal.SIGINT: signal.SIG_DFL}):
            store, own, count = next(dist.rendezvous("env://", timeout=PATIENCE))
            group = dist.PrefixStore("group", store)
            dist.init_process_group(backend, store=group, rank=own, world_size=count, timeout=PATIENCE)
    except (ValueError, RuntimeError) as error:
        reason = str(error).strip().split("\n")[0][:200]
        refusal = UserError(f"{size} processes cannot meet at {place} ({reason}): {advice}")
        refusal.shared = False
        raise refusal from error
    return store


def _leave(store: dist.Store, error: BaseException) -> None:
    """Leave the group after an error, so that a UserError is printed once and sets all exit codes.

    It is `shared` if rank 0 has the same one. Raises SystemExit if this process only lost a peer to a UserError.
    """
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # torchrun sends it once one has ended; keep own exit codes
    own, lost, said = rank(), lost_peer(error), [""]
    errors, left = ([f"{word} {i}" for i in range(world_size())] for word in ("error", "left"))
    with contextlib.suppress(RuntimeError):  # the store ends with rank 0, unless torchrun keeps it
        if lost:
            said = [store.get(name).decode() for name in errors if store.check([name])]
        store.set(errors[own], str(error) if isinstance(error, UserError) else "")
    seen: BaseException | None = error
    while seen:  # their frames hold networks, which hold threads of the group
        traceback.clear_frames(seen.__traceback__)
        seen = seen.__context__
    gc.collect()
    dist.destroy_process_group()  # processes that wait for this one notice
    with contextlib.suppress(RuntimeError):  # a process does not come
        if own and isinstance(error, UserError):
            error.shared = False
            store.wait(errors[:1], LEAVING)
            error.shared = store.get(errors[0]).decode() == str(error)
        store.set(left[own], "")
        if own == 0 and (any(said) or not lost):
            store.wait(left, LEAVING)
    if any(said):
        raise SystemExit(UserError.exit_code) from error


@contextlib.contextmanager
def rank_zero_first() -> Iterator[None]:
    """Let rank 0 run the block before the others, which then find what it downloaded or cached."""
    if rank() > 0:
        dist.barrier()
    yield
    if rank() == 0 and world_size() > 1:
        dist.barrier()


def on_rank_zero(function: Callable[..., T], *args: Any) -> T | None:
    """Return function(*args) on rank 0, None on the others. Raises its UserError on every rank."""
    result = error = None
    if rank() == 0:
        try:
            result = function(*args)
        except UserError as raised:
            error = raised
    if error := broadcast(error):
        error.shared = True
        raise error
    return result


def broadcast(value: Any) -> Any:
    """Return rank 0's value on every rank. It may be any small Python object."""
    values = [value]
    if world_size() > 1:
        dist.broadcast_object_list(values)
    return values[0]


def gather(tensor: Tensor) -> Tensor | None:
    """Return every rank's tensor, of one shape, stacked (ranks, ...) on rank 0; None on the others."""
    if world_size() == 1:
        return tensor.unsqueeze(0)
    parts = [torch.empty_like(tensor) for _ in range(world_size())] if rank() == 0 else None
    dist.gather(tensor, parts)
    return torch.stack(parts) if parts else None


def average(tensor: Tensor) -> Tensor:
    """Return the mean of all ranks' tensors, with the same bits on every rank."""
    if world_size() == 1:
        return tensor
    return SumOverRanks.apply(tensor) / world_size()


def agree(*numbers: int) -> Sequence[int]:
    """Return the maximum of each whole number over all ranks. A signal may reach only one, or each at another step."""
    if world_size() == 1:
        return numbers
    largest = torch.tensor(numbers)
    dist.all_reduce(largest, dist.ReduceOp.MAX)
    return largest.tolist()


# ---- Training on several ranks -------------------------------------------------------------------------------------


def local(batch: Tensor) -> Tensor:
    """Return this rank's share of a global batch that every rank has: (N, ...) -> (N / ranks, ...)."""
    return batch.chunk(world_size())[rank()]


class SumOverRanks(torch.autograd.Function):
    """The sum of all ranks' tensors; its gradient is the sum of all ranks' gradients."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        tensor = tensor.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(tensor)
        return tensor

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return SumOverRanks.apply(gradient)


class SyncBatchNorm(nn.modules.batchnorm._BatchNorm):
    """Batch norm over the batches of all ranks, which have one size. nn.SyncBatchNorm does this on CUDA only."""

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor
    momentum: float

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        given, x = x.dtype, x.to(self.running_mean.dtype)  # out of half precision
        dims, shape = [dim for dim in range(x.dim()) if dim != 1], [1, -1] + [1] * (x.dim() - 2)
        count = x.numel() // x.size(1) * world_size()
        mean = SumOverRanks.apply(x.sum(dims)) / count
        centred = x - mean.view(shape)
        variance = SumOverRanks.apply(centred.square().sum(dims)) / count
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * (count / (count - 1)), self.momentum)
        scale = (variance + self.eps).rsqrt()
        if not self.affine:
            return (centred * scale.view(shape)).to(given)
        return (centred * (self.weight * scale).view(shape) + self.bias.view(shape)).to(given)


def parallel(network: nn.Module, device: torch.device) -> nn.Module:
    """Return the network for updates: with several ranks, batch norms and gradients cover the batches of all."""
    if world_size() == 1:
        return network
    if device.type == "cuda":
        nn.SyncBatchNorm.convert_sync_batchnorm(network)
    else:
        for module in network.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.__class__ = SyncBatchNorm  # the optimizer and the EMA keep its parameters and buffers
    wrapped = DistributedDataParallel(network, [device.index] if device.type == "cuda" else None)
    # Buffers are already equal on every rank. Broadcasting them in place would break the backward through a network
    # that was called several times. (The argument of this name is deprecated since torch 2.14.)
    wrapped.broadcast_buffers = False
    return wrapped


def gradients_stay_local(network: nn.Module) -> contextlib.AbstractContextManager[None]:
    """Return a context in which a backward does not average gradients over ranks. It is for all parts but the last."""
    return network.no_sync() if isinstance(network, DistributedDataParallel) else contextlib.nullcontext()
