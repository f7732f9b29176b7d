"""What everything may use: errors, the terminal, files, locks, processes, threads, precision, pictures.

Imported first by each script: says whether Python is too old and which packages are not installed, answers Ctrl-C while
they are imported, and tells OpenMP how its threads wait before torch loads it. Older Pythons can read this file.
"""

import importlib.util
import os
import signal
import sys
from types import FrameType

if sys.version_info < (3, 11):  # noqa: UP036
    found = "{}.{}.{} ({})".format(*sys.version_info[:3], sys.executable)
    words = "Python 3.11 or newer is needed, and this is {}. Run, for example: python3.11 {}"
    print("error: " + words.format(found, " ".join(sys.argv)), file=sys.stderr)
    raise SystemExit(2)


def interrupted(number: int, frame: FrameType | None) -> None:
    """Answer Ctrl-C: raise KeyboardInterrupt or, where a package is being imported that may swallow it, end at once."""
    while frame and not frame.f_code.co_filename.startswith("<frozen importlib"):
        frame = frame.f_back
    if frame:
        os.write(2, b"\ninterrupted\n")
        os._exit(130)
    raise KeyboardInterrupt


# In this project's scripts: a notebook that imports it answers in its own way.
ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
SCRIPT = getattr(sys.modules["__main__"], "__file__", None) or ""
if os.path.dirname(os.path.abspath(SCRIPT)) == ROOT and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, interrupted)

NEEDED = (
    *("torch", "torchvision", "numpy", "scipy", "matplotlib", "tqdm", "yaml", "torch_fidelity", "sklearn"),
    "safetensors",
)

missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
if missing:
    print(f"error: not installed: {', '.join(missing)}. Run: pip install -r requirements.txt", file=sys.stderr)
    raise SystemExit(2)

# Threads of OpenMP spin while they wait for each other, and where another program has a core, they spin for one that
# does not run: steps took twice as long and more. To sleep costs a tenth to a quarter of a step on a quiet machine.
if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"} & os.environ.keys():
    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
