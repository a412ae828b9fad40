#!/bin/bash
#SBATCH --job-name=qeval
#SBATCH --array=1-16
#SBATCH --cpus-per-task=16
#SBATCH --mem=16G
#SBATCH --time=04:00:00
#SBATCH --requeue
# One evaluation as an array of shards, on storage that all nodes see:
#
#   export MODEL=/shared/model TASKS=piqa,hellaswag,wikitext DATA=/shared/data OUT=/shared/results/model
#   job=$(sbatch --parsable docs/cluster/slurm-array.sh)
#   sbatch --dependency=afterok:$job --export=ALL docs/cluster/slurm-merge.sh
#
# A task that was killed or requeued continues where it was; one that is finished ends at once.
set -euo pipefail

exec qeval eval -m "$MODEL" -t "$TASKS" -d "$DATA" \
  --shard "$SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT" --resume \
  -o "$OUT/shards/$SLURM_ARRAY_TASK_ID" --threads "${SLURM_CPUS_PER_TASK:-1}"
