"""A run that is killed again and again, at random moments, ends as the run that was left alone, bit for bit."""

import json
import os
import time

import pytest
from helpers import SMALL, assert_same_end, logged, steps_of

# Each life of the run is a fork. It is killed when its time is over: between steps, in one, while it logs, saves or
# loads. The times are such that it never gets to its end before the last one.
BODY = """
import json, os, random, select, shutil, signal, sys, time
from pathlib import Path
import train
from training import prepare
from training.checkpoints.run_dir import checkpoints
from training.reporting.showing import Show

flags, folder, kills, seed = json.loads(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
Show.end = lambda *args: None  # drawn anew each time, of what is compared at the end

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

signal.alarm(0)  # the long form has its time
began = time.monotonic()
assert live(folder / "whole") == 0, (folder / "output.txt").read_text()[-2000:]
longest = 0.8 * (time.monotonic() - began) / kills
moments, killed = random.Random(seed), 0
while killed < kills:
    code = live(folder / "killed", moments.uniform(0, longest))
    if code == 0:  # it ended by itself: the rest of the kills meets it while it finds nothing left to do
        break
    assert code == -signal.SIGKILL, (folder / "output.txt").read_text()[-2000:]
    killed += 1
assert live(folder / "killed") == 0, (folder / "output.txt").read_text()[-2000:]
print(killed)
"""


@pytest.mark.parametrize("kills", [2, pytest.param(30, marks=pytest.mark.slow)])
def test_a_run_that_is_killed_at_random_moments_ends_as_the_one_that_was_not(tmp_path, forks, kills):
    seed = int(os.environ.get("SOAK_SEED", time.time_ns() % 2**32))
    print(f"SOAK_SEED={seed}")  # pytest shows it where the test fails
    flags = SMALL | {"total_steps": 60 * kills, "save_every": 7, "log_every": 3, "sample_every": 50, "keep": 2}
    done = forks.run(BODY, json.dumps(flags), tmp_path, kills, seed)
    assert done.returncode == 0, f"SOAK_SEED={seed}\n{done.stderr}"
    assert_same_end(tmp_path / "whole", tmp_path / "killed")
    assert steps_of(tmp_path / "killed")[-1] == 60 * kills and len(logged(tmp_path / "killed")) == 20 * kills
    assert int(done.stdout) == kills, f"SOAK_SEED={seed}: the run ended before all kills came"
