#!/usr/bin/env bash
# Train and score SN-GAN (Miyato et al. 2018) with the ResNet on CIFAR-10.
# Flags are passed on: scripts/train_sngan.sh --total_steps 1000 --run_dir runs/trial
set -euo pipefail
cd "$(dirname "$0")/.."
[ -x .venv/bin/python ] && PYTHON="${PYTHON:-.venv/bin/python}"
exec "${PYTHON:-python3}" main.py --dataset cifar10 --model resnet --loss hinge "$@"
