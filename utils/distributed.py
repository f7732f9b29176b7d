"""Devices and processes. Under torchrun each process is a rank; alone, a process is rank 0 of 1."""

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
LEAVING = datetime.timedelta(seconds=3)  # and this long for each other when one has met an error


def accelerators() -> dict[str, int]:
    """How many devices of each kind torch sees here, besides the CPU, in the order in which auto takes them."""
    cuda = torch.cuda.device_count() if torch.cuda.is_available() else 0
    counts = {"cuda": cuda, "mps": torch.mps.device_count(), "xpu": torch.xpu.device_count()}
    return {kind: count for kind, count in counts.items() if count}


def select_device(name: str) -> torch.device:
    """The torch.device that --device names: auto, or a kind of device, with or without a number. UserError for others.

    auto is the first of accelerators(), or the CPU. Several processes compute on the CPU or on CUDA: under torchrun,
    auto and cuda are the GPU of this process's local rank.
    """
    known = re.fullmatch(r"auto|cpu|(cuda|mps|xpu)(:\d+)?", name)
    refuse_if(not known, f"--device takes auto, cpu, cuda, mps or xpu, or one by its number as in cuda:1, not {name!r}")
    found = accelerators()
    usable = [kind for kind in found if kind == "cuda" or not launched()]
    kind, _, index = name.replace("auto", [*usable, "cpu"][0]).partition(":")
    if kind == "cpu":
        return torch.device("cpu")
    there = [f"{kind}:{i}" for kind, count in found.items() for i in range(count)]
    absent = f"--device {name} was asked for, but torch finds only {', '.join(['cpu', *there])} here; use --device auto"
    refuse_if(found.get(kind, 0) <= int(index or 0), absent)
    if launched():
        refuse_if(kind != "cuda", f"--device {name} is for one process: several take --device cuda or --device cpu")
        single = f"--device {name} is one device, and there are several processes: --device cuda gives each its own"
        refuse_if(index, single)
        crowded = f"there are more processes than CUDA devices, {found[kind]}: one each, or --device cpu"
        refuse_if(number("LOCAL_WORLD_SIZE", 1) > found[kind], crowded)
        index = str(number("LOCAL_RANK", 0) % found[kind])
    return torch.device(f"{kind}:{index}" if index else kind)


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def say_once(text: str) -> None:
    """print(), on rank 0 alone."""
    if rank() == 0:
        print(text, flush=True)


def world_size() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


@contextlib.contextmanager
def processes() -> Iterator[None]:
    """Join the other processes that torchrun started, for as long as the context lasts.

    Says what is waited for where they do not come. UserError where it is known that they cannot meet.
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
    """Make the group. Returns the store by which its processes met, and in which they read of each other's errors."""
    size, place = os.environ["WORLD_SIZE"], f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
    advice = "start them with torchrun or, for one process alone, unset WORLD_SIZE and RANK"
    backend = "cpu:gloo"  # for what lies on the CPU: objects, features, signals
    if torch.cuda.is_available():
        torch.cuda.set_device(select_device("auto"))
        backend += ",cuda:nccl"
    waiting = f"waiting at {place} for all {size} processes; if there are no others, {advice}"
    try:
        # The wait is not Python's, and would not see Ctrl-C.
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
    """Leave the group after an error. One message of a UserError is enough, and its exit code is everybody's.

    It is shared where rank 0 has the same. A process that only lost another one to it ends by SystemExit.
    """
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # torchrun's, once one has ended: each ends with its own exit code
    own, lost, said = rank(), lost_peer(error), [""]
    errors, left = ([f"{word} {i}" for i in range(world_size())] for word in ("error", "left"))
    with contextlib.suppress(RuntimeError):  # the store ends with rank 0, where torchrun does not keep it
        if lost:
            said = [store.get(name).decode() for name in errors if store.check([name])]
        store.set(errors[own], str(error) if isinstance(error, UserError) else "")
    seen: BaseException | None = error
    while seen:  # their frames hold networks, which hold threads of the group
        traceback.clear_frames(seen.__traceback__)
        seen = seen.__context__
    gc.collect()
    dist.destroy_process_group()  # those that wait for this process see it
    with contextlib.suppress(RuntimeError):  # one does not come
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
    """Rank 0 passes the block, then all others: what it downloaded or cached is there for them."""
    if rank() > 0:
        dist.barrier()
    yield
    if rank() == 0 and world_size() > 1:
        dist.barrier()


def on_rank_zero(function: Callable[..., T], *args: Any) -> T | None:
    """function(*args) on rank 0, and None on the others. Its UserError is every rank's."""
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
    """Rank 0's value on every rank; it may be any small Python object."""
    values = [value]
    if world_size() > 1:
        dist.broadcast_object_list(values)
    return values[0]


def gather(tensor: Tensor) -> Tensor | None:
    """Every rank's tensor, of one shape, stacked in front (ranks, ...) on rank 0; None on the others."""
    if world_size() == 1:
        return tensor.unsqueeze(0)
    parts = [torch.empty_like(tensor) for _ in range(world_size())] if rank() == 0 else None
    dist.gather(tensor, parts)
    return torch.stack(parts) if parts else None


def average(tensor: Tensor) -> Tensor:
    """The mean of every rank's tensor, the same bits on all."""
    if world_size() == 1:
        return tensor
    return SumOverRanks.apply(tensor) / world_size()


def agree(*numbers: int) -> Sequence[int]:
    """The largest of every rank's whole numbers, on all: a signal may reach one process alone, or each at its step."""
    if world_size() == 1:
        return numbers
    largest = torch.tensor(numbers)
    dist.all_reduce(largest, dist.ReduceOp.MAX)
    return largest.tolist()


# ---- Training on several ranks -------------------------------------------------------------------------------------


def local(batch: Tensor) -> Tensor:
    """This rank's share of a global batch, the same on every rank: (N, ...) -> (N / ranks, ...)."""
    return batch.chunk(world_size())[rank()]


class SumOverRanks(torch.autograd.Function):
    """The sum of every rank's tensor; its gradient is the sum of every rank's gradients."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        tensor = tensor.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(tensor)
        return tensor

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return SumOverRanks.apply(gradient)


class SyncBatchNorm(nn.modules.batchnorm._BatchNorm):
    """Batch norm over the batches of all ranks, which are of one size. nn.SyncBatchNorm does so on CUDA alone."""

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
    """The network for the updates: among several ranks, its batch norms and its gradients are of all their batches."""
    if world_size() == 1:
        return network
    if device.type == "cuda":
        nn.SyncBatchNorm.convert_sync_batchnorm(network)
    else:
        for module in network.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.__class__ = SyncBatchNorm  # its parameters and buffers stay what the optimizer and the EMA know
    wrapped = DistributedDataParallel(network, [device.index] if device.type == "cuda" else None)
    # Buffers follow from the same numbers on every rank. To broadcast them, in place, would break the backward through
    # a network that was called several times. (The argument of this name is deprecated since torch 2.14.)
    wrapped.broadcast_buffers = False
    return wrapped


def gradients_stay_local(network: nn.Module) -> contextlib.AbstractContextManager[None]:
    """A context in which a backward adds to this rank's gradients, without the other ranks': all parts but the last."""
    return network.no_sync() if isinstance(network, DistributedDataParallel) else contextlib.nullcontext()
