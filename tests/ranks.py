"""Starts functions on several ranks. Each is a fork of one process that has imported torch, which takes seconds."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def run_stages(body, stages, timeout=200):
    """Run the Python source `body`, then each stage (number of ranks, a call in that source) on so many ranks.

    Returns, for each stage, the exit codes of its ranks (negative: by a signal) and what they printed.
    """
    command = [sys.executable, __file__, body, json.dumps(stages)]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=timeout)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def _free_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


def _start(body, call, rank, count, port, printed):
    """In a fork: become the rank, make the call, end."""
    os.dup2(printed.fileno(), 1)
    os.dup2(printed.fileno(), 2)
    if count > 1:
        os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count)}
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    import torch

    from utils.errors import run_as_script

    torch.set_num_threads(1)
    code = 1
    try:
        run_as_script(lambda: eval(call, body))
        code = 0
    except SystemExit as end:
        code = end.code or 0
    except BaseException:
        import traceback

        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def main():
    import tempfile

    body = {}
    exec(sys.argv[1], body)
    results = []
    for count, call in json.loads(sys.argv[2]):
        port = _free_port()
        with tempfile.TemporaryFile("w+") as printed:
            children = []
            for rank in range(count):
                if (child := os.fork()) == 0:
                    _start(body, call, rank, count, port, printed)
                children.append(child)
            codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
            printed.seek(0)
            results.append({"codes": codes, "printed": printed.read()})
    print(json.dumps(results))


if __name__ == "__main__":
    main()
