"""A run that is killed again and again, at random moments, ends as the run that was left alone, bit for bit."""

import os
import subprocess
import sys
import time

import pytest
from helpers import ROOT, SMALL

KILLS = {"short": 2, "long": 30}

# Each life of the run is a fork of one process that has imported torch. It is killed when its time is over: between
# steps, in one, while it logs, saves or loads.
BODY = """
import json, os, random, select, shutil, signal, sys
from pathlib import Path
import sklearn.datasets, torch._dynamo
import train
from training import checkpoint, prepare
from training.run_dir import checkpoints, latest

flags, folder, kills, seed = json.loads(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])

def live(run_dir, seconds=None):
    child = os.fork()
    if child == 0:
        output = os.open(folder / "output.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(output, 1)
        os.dup2(output, 2)
        code = 1
        try:
            again = checkpoints(run_dir)
            if run_dir.exists() and not again:  # killed before its first checkpoint: nothing is lost but its start
                shutil.rmtree(run_dir)
            train.train(prepare({"resume": str(run_dir)} if again else {**flags, "run_dir": str(run_dir)}))
            code = 0
        except BaseException:
            import traceback
            traceback.print_exc()
        finally:
            os._exit(code)
    ended = os.pidfd_open(child)
    if not select.select([ended], [], [], seconds)[0]:
        os.kill(child, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    os.close(ended)
    return code

assert live(folder / "whole") == 0, (folder / "output.txt").read_text()[-2000:]
moments, killed = random.Random(seed), 0
while killed < kills:
    code = live(folder / "killed", moments.uniform(0, float(sys.argv[5])))
    if code == 0:  # it ended by itself: the rest of the kills meets it while it finds nothing left to do
        break
    assert code == -signal.SIGKILL, (folder / "output.txt").read_text()[-2000:]
    killed += 1
assert live(folder / "killed") == 0, (folder / "output.txt").read_text()[-2000:]

def same(a, b):
    import torch
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b

from training.logger import read_stats
runs = folder / "whole", folder / "killed"
first, second = (checkpoint.load(latest(run_dir)) for run_dir in runs)
lines = [[{**line, "seconds_per_step": 0} for line in read_stats(run_dir)] for run_dir in runs]
resumed = (folder / "output.txt").read_text().count("resumed     at step")
print(json.dumps({
    "killed": killed, "resumed": resumed, "same_state": same(first, second), "same_stats": lines[0] == lines[1],
    "lines": len(lines[0]), "step": second["step"],
}))
"""


@pytest.mark.parametrize("form", ["short", pytest.param("long", marks=pytest.mark.slow)])
def test_a_run_that_is_killed_at_random_moments_ends_as_the_one_that_was_not(tmp_path, form):
    import json

    kills = KILLS[form]
    seed = int(os.environ.get("SOAK_SEED", time.time_ns() % 2**32))
    print(f"SOAK_SEED={seed}")  # pytest shows it where the test fails
    flags = SMALL | {"total_steps": 60 * kills, "save_every": 7, "log_every": 3, "sample_every": 50, "keep": 2}
    command = [sys.executable, "-c", BODY, json.dumps(flags), str(tmp_path), str(kills), str(seed), "2.0"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, f"SOAK_SEED={seed}\n{done.stderr}"
    found = json.loads(done.stdout)
    print(found)
    assert found["same_state"] and found["same_stats"], f"SOAK_SEED={seed}: {found}"
    assert found["step"] == 60 * kills and found["lines"] == 20 * kills
    assert found["killed"] == kills, f"SOAK_SEED={seed}: the run ended before all kills came"
