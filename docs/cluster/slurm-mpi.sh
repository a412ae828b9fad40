#!/bin/bash
#SBATCH --job-name=qeval
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --time=04:00:00
#SBATCH --requeue
# One evaluation on several nodes by MPI (a build with the preset "mpi"), on storage that all nodes see:
#
#   export MODEL=/shared/model TASKS=piqa,hellaswag,wikitext DATA=/shared/data OUT=/shared/results/model
#   sbatch docs/cluster/slurm-mpi.sh
#
# Submitted again, with any number of nodes, it continues. One rank per node is enough: it uses all cores.
set -euo pipefail

exec mpirun --bind-to none -n "$SLURM_NTASKS" \
  qeval eval -m "$MODEL" -t "$TASKS" -d "$DATA" --resume -o "$OUT"
