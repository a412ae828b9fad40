#!/bin/bash
#SBATCH --job-name=qeval-merge
#SBATCH --cpus-per-task=2
#SBATCH --time=00:30:00
# After slurm-array.sh, with the same OUT: OUT/merged/results.json, as one process would have left it.
set -euo pipefail

exec qeval merge "$OUT"/shards/* -o "$OUT/merged"
