"""Runs Python in forks of one process that has imported torch, which takes seconds: as a script, or as several ranks.

That process computes nothing itself, so that its forks are as new. This file is what it runs.
"""

import gc
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
PATIENCE = 200  # seconds after which a fork is killed


class Ended(NamedTuple):
    """How forks ended: the exit code of each (negative: by a signal), and what they printed together."""

    codes: list
    stdout: str
    stderr: str

    @property
    def returncode(self):
        (code,) = self.codes
        return code


class Forks:
    """The process that is forked. It ends with the one that made it."""

    def __init__(self):
        environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}", "OMP_WAIT_POLICY": "PASSIVE"}
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self.process = subprocess.Popen([sys.executable, __file__], cwd=ROOT, env=environment, text=True, **pipes)

    def run(self, what, *arguments, ranks=1):
        """Run a script of the project or Python source, with these arguments, as so many ranks. Returns Ended."""
        with tempfile.TemporaryDirectory() as folder:
            outputs = [os.path.join(folder, name) for name in ("stdout", "stderr")]
            self.process.stdin.write(json.dumps([what, list(map(str, arguments)), ranks, outputs]) + "\n")
            self.process.stdin.flush()
            codes = json.loads(self.process.stdout.readline())
            return Ended(codes, *(Path(path).read_text(encoding="utf-8") for path in outputs))

    def close(self):
        with self.process:  # closes its pipes and waits for it
            self.process.kill()


# ---- In that process -----------------------------------------------------------------------------------------------


def become(outputs, rank, ranks, port):
    """In a fork: take its own input, outputs and, among several, its place."""
    signal.alarm(PATIENCE)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for number, path in enumerate(outputs, 1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_APPEND), number)
    if ranks > 1:
        os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(ranks)}
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}


def free_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


def serve():
    """Fork for each line that comes and answer with the exit codes. Returns in each fork with what it is to run."""
    for line in sys.stdin:
        what, arguments, ranks, outputs = json.loads(line)
        for path in outputs:
            Path(path).touch()
        children, port = [], free_port()
        for rank in range(ranks):
            if (child := os.fork()) == 0:
                become(outputs, rank, ranks, port)
                return what, arguments
            children.append(child)
        print(json.dumps([os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]), flush=True)
    return None


def execute(what, arguments):
    """Be `python WHAT ARGUMENTS`, or `python -c WHAT ARGUMENTS`."""
    code = 1
    try:
        sys.argv = [what if what.endswith(".py") else "-c", *arguments]
        if what.endswith(".py"):
            runpy.run_path(what, run_name="__main__")
        else:
            exec(compile(what, "<a test>", "exec"), {"__name__": "__main__"})
        code = 0
    except SystemExit as end:
        code = end.code or 0
    except BaseException:
        traceback.print_exc()
    try:  # as the interpreter ends, but for taking all modules apart, which takes a second
        for stream in (sys.stdout, sys.stderr):
            if not stream.closed:
                stream.flush()
    except OSError:
        code = code or 120
    os._exit(code)


def main():
    import sklearn.datasets  # noqa: F401
    import torch._dynamo  # noqa: F401

    import evaluate  # noqa: F401

    gc.freeze()  # so that no fork's collection touches, and copies, the memory that all share
    if call := serve():
        execute(*call)


if __name__ == "__main__":
    main()
