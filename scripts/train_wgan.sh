#!/usr/bin/env bash
# Train and score WGAN with weight clipping (Arjovsky et al. 2017) on CIFAR-10.
# Flags are passed on: scripts/train_wgan.sh --total_steps 1000 --run_dir runs/trial
set -euo pipefail
cd "$(dirname "$0")/.."
[ -x .venv/bin/python ] && PYTHON="${PYTHON:-.venv/bin/python}"
exec "${PYTHON:-python3}" main.py --config configs/cifar10_dcgan_wgan.yaml "$@"
