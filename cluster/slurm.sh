#!/usr/bin/env bash
# One command of dhdiff-ray on a Ray cluster that lives as long as one Slurm allocation:
#
#   sbatch --nodes=4 --gpus-per-node=1 cluster/slurm.sh train --dataset mvtec --root /shared/mvtec \
#     --preset sd15 --run first --storage /shared/runs --set train.gpus_per_worker=1
#
# The words are those of `dhdiff-ray submit`; the job's exit code is the command's. When Slurm starts the job again it
# goes on with --resume. The package, the images and the storage must lie where every node sees them. Never run on
# Slurm: cluster/README.md says what was tried.
#
#SBATCH --job-name=dhdiff
#SBATCH --exclusive
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --requeue
set -euo pipefail

# --exclusive: when it ends, `ray symmetric-run` stops every Ray of this user on its nodes, and the ports are fixed.
: "${SLURM_JOB_ID:?start this with sbatch; see the first lines of cluster/slurm.sh}"
if (($# == 0)); then
  echo "usage: sbatch cluster/slurm.sh VERB OPTIONS, as for dhdiff-ray submit" >&2
  exit 2
fi

# Change these two where your site differs: the environment with the package, and a folder that every node sees.
venv=${DHDIFF_VENV:-$SLURM_SUBMIT_DIR/.venv}
shared=${DHDIFF_SHARED:-$HOME/.dhdiff-ray}
port=${DHDIFF_PORT:-6379}

export PATH="$venv/bin:$PATH"
if ! command -v dhdiff-ray >/dev/null; then
  echo "no dhdiff-ray in $venv/bin; say where it is: sbatch --export=ALL,DHDIFF_VENV=FOLDER cluster/slurm.sh ..." >&2
  exit 2
fi

# A token of this job's own, readable by this user alone, gone when the job is.
umask 077
state=$shared/slurm-$SLURM_JOB_ID
mkdir -p "$state"
trap 'rm -rf -- "$state"' EXIT
python -c 'import secrets; print(secrets.token_hex(32), end="")' >"$state/token"
unset RAY_ADDRESS RAY_API_SERVER_ADDRESS RAY_AUTH_TOKEN
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=$state/token RAY_USAGE_STATS_ENABLED=0
# Ray's folder on each node, not another user's /tmp/ray; its logs stay there.
export RAY_TMPDIR=/tmp/dhdiff-$SLURM_JOB_ID
export RAY_SYMMETRIC_RUN_CLUSTER_WAIT_TIMEOUT=${RAY_SYMMETRIC_RUN_CLUSTER_WAIT_TIMEOUT:-300}

mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
resume=()
if ((${SLURM_RESTART_COUNT:-0} > 0)); then
  resume=(--resume)
fi

# Ray's own exit code is 0 when it does not start; the file tells that the command was reached.
# shellcheck disable=SC2016  # for the shell on the head node
on_head='touch "$0"; exec dhdiff-ray submit "$@" --address http://127.0.0.1:8265'
code=0
srun --nodes="${#nodes[@]}" --ntasks-per-node=1 --cpus-per-task="${SLURM_CPUS_PER_TASK:-1}" \
  ray symmetric-run --address "${nodes[0]}:$port" --min-nodes "${#nodes[@]}" \
  --num-cpus="${SLURM_CPUS_PER_TASK:-1}" --num-gpus="${SLURM_GPUS_ON_NODE:-0}" \
  -- bash -c "$on_head" "$state/reached" "$@" "${resume[@]}" || code=$?
if ((code == 0)) && [[ ! -e $state/reached ]]; then
  echo "Ray did not start on all ${#nodes[@]} nodes; what it said is above" >&2
  code=5
fi
exit "$code"
