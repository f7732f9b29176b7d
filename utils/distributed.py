"""Devices and processes. Under torchrun each process is a rank; alone, a process is rank 0 of 1."""

import contextlib
import datetime
import os

import torch
import torch.distributed as dist

from .errors import UserError

PATIENCE = datetime.timedelta(days=1)  # ranks wait this long for rank 0, which trains the classifier and scores


def select_device(name):
    """The torch.device that --device names: auto, cpu, cuda or cuda:N. UserError where it is not there.

    auto is CUDA where there is one. Under torchrun, auto and cuda are the GPU of this process's local rank.
    """
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    local = os.environ.get("LOCAL_RANK")
    if name == "auto" or (name == "cuda" and count):
        return torch.device(("cuda" if local is None else f"cuda:{int(local) % count}") if count else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UserError(f"--device takes auto, cpu, cuda or cuda:N, not {name!r}") from error
    if device.type == "cuda":
        if count <= (device.index or 0):
            raise UserError(
                f"--device {name} was asked for, but torch sees {count} CUDA devices here; use --device auto"
            )
    elif device.type != "cpu":
        raise UserError(f"--device takes auto, cpu, cuda or cuda:N, not {name!r}")
    return device


def rank():
    return dist.get_rank() if dist.is_initialized() else 0


def world_size():
    return dist.get_world_size() if dist.is_initialized() else 1


@contextlib.contextmanager
def processes():
    """Join the other processes that torchrun started, for as long as the context lasts."""
    if "RANK" in os.environ and int(os.environ.get("WORLD_SIZE", 1)) > 1:
        dist.init_process_group("gloo", timeout=PATIENCE)  # what is exchanged lies on the CPU
    try:
        yield
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


@contextlib.contextmanager
def rank_zero_first():
    """Rank 0 passes the block, then all others: what it downloaded or cached is there for them."""
    if rank() > 0:
        dist.barrier()
    yield
    if rank() == 0 and world_size() > 1:
        dist.barrier()


def broadcast(value):
    """Rank 0's value on every rank; it may be any small Python object."""
    values = [value]
    if world_size() > 1:
        dist.broadcast_object_list(values)
    return values[0]


def gather(tensor):
    """Every rank's tensor, of one shape, stacked in front (ranks, ...) on rank 0; None on the others."""
    if world_size() == 1:
        return tensor.unsqueeze(0)
    parts = [torch.empty_like(tensor) for _ in range(world_size())] if rank() == 0 else None
    dist.gather(tensor, parts)
    return torch.stack(parts) if parts else None


@contextlib.contextmanager
def all_cores():
    """A context in which this rank computes on every core, as a process alone does: torchrun leaves it a single one.

    The last bits of a sum depend on the number of threads, and the scores are to be the same.
    """
    if world_size() == 1:
        yield
        return
    from threadpoolctl import threadpool_limits

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    before = torch.get_num_threads()
    torch.set_num_threads(cores)
    try:
        with threadpool_limits(cores, user_api="blas"):
            yield
    finally:
        torch.set_num_threads(before)
