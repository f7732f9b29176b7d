#!/usr/bin/env bash
# Train and score DCGAN (Radford et al. 2016) on MNIST at 64 pixels.
# Flags are passed on: scripts/train_dcgan.sh --total_steps 1000 --run_dir runs/trial
set -euo pipefail
cd "$(dirname "$0")/.."
[ -x .venv/bin/python ] && PYTHON="${PYTHON:-.venv/bin/python}"
exec "${PYTHON:-python3}" main.py --config configs/mnist_dcgan64.yaml "$@"
