#!/usr/bin/env bash
# Places the runs of a grid with Slurm, one array task a run:
#
#     sbatch --array=0-9%4 docs/examples/grid_slurm.sh configs/grids/world.yaml
#
# `ske grid FILE` says how many runs there are; %4 is how many may run at once. Submit the same line
# again after a failure or a time limit: finished runs end at once, the others go on.
#SBATCH --job-name=ske-grid
#SBATCH --gres=gpu:1
#SBATCH --cpus-per-task=4
#SBATCH --mem=32G
#SBATCH --time=08:00:00
#SBATCH --requeue
#SBATCH --output=slurm-%A_%a.log
set -euo pipefail
cd "${SLURM_SUBMIT_DIR:-.}"
exec "${PYTHON:-.venv/bin/python}" -m pipeline.cli grid "$1" --number "$SLURM_ARRAY_TASK_ID"
