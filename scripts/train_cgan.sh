#!/usr/bin/env bash
# Train and score the conditional GAN (Mirza and Osindero 2014) on MNIST, an MLP pair with binary cross-entropy.
# Flags are passed on: scripts/train_cgan.sh --total_steps 1000 --run_dir runs/trial
set -euo pipefail
cd "$(dirname "$0")/.."
[ -x .venv/bin/python ] && PYTHON="${PYTHON:-.venv/bin/python}"
exec "${PYTHON:-python3}" main.py --config configs/mnist_mlp_cgan.yaml "$@"
