"""Pictures decoded by all cores: processes of datasets/decode.py, which start without torch and know no fork."""

import contextlib
import json
import queue
import subprocess
import sys
from collections import Counter
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from utils.console import progress
from utils.distributed import rank
from utils.errors import UserError, memory_ran_out
from utils.threads import cores

from . import decode
from .decode import How

PART = 64  # pictures in a part of the work: bounds the memory of a process, and what a bar waits for
ALONE = 4 * PART  # so few are decoded sooner than processes start
Answers = Generator[dict[str, Any], None, None]


class Decoded(NamedTuple):
    """What was found of pictures: how many could be read, why the others could not, and what the former were."""

    num: int
    bad: dict[str, str]  # name -> reason, in their order
    sizes: Counter[tuple[int, int]]  # width and height of those that could be read -> how many
    transparent: int
    own_range: int


def decode_all(root: Path, names: list[str], how: How, target: Path, processes: int | None = None) -> Decoded:
    """Decode the pictures of these names below root, a folder or .zip archive, into a file of their pixels.

    target, which has to exist, holds (N, C, S, S) uint8 then, the N that could be read, in their order. processes: as
    many as there are cores unless given. OSError where the file cannot be written, UserError where a process dies.
    """
    size = how.channels * how.image_size**2
    parts = [(start, names[start : start + PART]) for start in range(0, len(names), PART)]
    if processes is None:
        processes = min(cores(), len(parts)) if len(names) > ALONE else 1
    answers = _alone(root, parts, how, target) if processes == 1 else _by_many(root, parts, how, target, processes)
    bad: dict[str, str] = {}
    sizes: Counter[tuple[int, int]] = Counter()
    counts: Counter[str] = Counter()
    holes = []
    bar = progress(total=len(names), label="decoding images", unit="image", disable=rank() > 0)
    with bar, contextlib.closing(answers):  # which closes the file
        for (start, some), report in zip(parts, answers):
            bad |= {some[number]: reason for number, reason in report["bad"]}
            sizes.update((width, height) for width, height in report["sizes"])
            counts.update({name: report[name] for name in ("transparent", "own_range")})
            holes.append((start, len(report["sizes"])))
            bar.update(len(some))
    close_up(target, size, holes)
    return Decoded(len(names) - len(bad), bad, sizes, counts["transparent"], counts["own_range"])


def close_up(target: Path, size: int, parts: list[tuple[int, int]]) -> None:
    """Move together what stands at (start, count) in a file, in items of so many bytes, and cut off the rest."""
    end = 0
    with open(target, "r+b") as file:
        for start, count in parts:
            if start != end:
                file.seek(start * size)
                kept = file.read(count * size)
                file.seek(end * size)
                file.write(kept)
            end += count
        file.truncate(end * size)


def _alone(root: Path, parts: list[tuple[int, list[str]]], how: How, target: Path) -> Answers:
    open_one = decode.opener(str(root))
    with open(target, "r+b") as file:
        for start, names in parts:
            pixels, found = decode.decode(open_one, names, how, memory_ran_out)
            file.seek(start * how.channels * how.image_size**2)
            file.write(pixels)
            yield found


def _by_many(root: Path, parts: list[tuple[int, list[str]]], how: How, target: Path, processes: int) -> Answers:
    """What each part gave, in their order."""
    words = json.dumps([str(root), str(target), how.image_size, how.channels, how.background, how.crop])
    # -P: the folder of the script, whose files have names of their own, is no place to import from.
    command = [sys.executable, "-P", decode.__file__, words]
    size = how.channels * how.image_size**2
    started: list[subprocess.Popen[str]] = []
    idle: queue.SimpleQueue[subprocess.Popen[str]] = queue.SimpleQueue()

    def ask(part: tuple[int, list[str]]) -> dict[str, Any]:
        start, names = part
        process = idle.get()
        try:
            answer = _ask(process, {"names": names, "at": start * size})
        finally:
            idle.put(process)  # also one that has ended: whoever asks it next is told the same
        if answer is None:
            raise UserError(
                f"a process that decoded images ended (exit code {process.wait()}) at {root / names[0]} or one of the "
                f"{len(names) - 1} after it. If the system ended it, for its memory, the same command may succeed"
            )
        return answer

    threads = ThreadPoolExecutor(processes)
    try:
        for _ in range(processes):
            started.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
            idle.put(started[-1])
        for found in threads.map(ask, parts):
            if "memory" in found:
                raise MemoryError(found["memory"])
            if "errno" in found:
                raise OSError(found["errno"], found["strerror"])
            yield found
    finally:  # also where nobody waits for the rest any more
        threads.shutdown(wait=False, cancel_futures=True)
        for process in started:
            process.kill()
        threads.shutdown()
        for process in started:
            process.communicate()


def _ask(process: "subprocess.Popen[str]", job: dict[str, Any]) -> dict[str, Any] | None:
    """A process's answer; None where it has ended."""
    assert process.stdin and process.stdout
    with contextlib.suppress(BrokenPipeError):
        process.stdin.write(json.dumps(job) + "\n")
        process.stdin.flush()
    answer = process.stdout.readline()
    return json.loads(answer) if answer.endswith("\n") else None
