"""What everything may use: errors, the terminal, files, locks, processes, threads, precision, pictures.

Imported first by each script: says which of the packages that the project needs are not installed, and tells OpenMP how
its threads wait before torch loads it.
"""

import importlib.util
import os
import sys

NEEDED = (
    *("torch", "torchvision", "numpy", "scipy", "matplotlib", "tqdm", "yaml", "torch_fidelity", "sklearn"),
    "safetensors",
)

if missing := [name for name in NEEDED if importlib.util.find_spec(name) is None]:
    print(f"error: not installed: {', '.join(missing)}. Run: pip install -r requirements.txt", file=sys.stderr)
    raise SystemExit(2)

# Threads of OpenMP spin while they wait for each other, and where another program has a core, they spin for one that
# does not run: steps took twice as long and more. To sleep costs a tenth to a quarter of a step on a quiet machine.
if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"} & os.environ.keys():
    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
