#!/usr/bin/env bash
# A Ray cluster inside a Slurm job, one Ray node per Slurm node, and a run on it.  Not yet run on Slurm: all of its lines
# were run on one machine, with stand-ins for srun and scontrol.  Adapt it and try it small.
#SBATCH --job-name=rpucluster
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --time=01:00:00
set -euo pipefail

# an environment that all nodes see, and a run directory that all nodes see
source "$HOME/rpucluster/bin/activate"
out=$HOME/runs/slurm-$SLURM_JOB_ID

# whoever reaches Ray's ports can run code as you: it asks for a token that only this job has
export RAY_AUTH_MODE=token
RAY_AUTH_TOKEN=$(head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \n')
export RAY_AUTH_TOKEN

port=6379
head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
address=$(srun --nodes=1 --ntasks=1 --nodelist="$head" hostname --ip-address | awk '{print $1}')

# `--block` keeps the steps, and so Ray, alive until the job ends; `--overlap` lets the run share the first node
srun --overlap --nodes=1 --ntasks=1 --nodelist="$head" \
    ray start --head --node-ip-address="$address" --port="$port" --num-cpus="$SLURM_CPUS_PER_TASK" --block &
sleep 20
if ((SLURM_JOB_NUM_NODES > 1)); then
    srun --overlap --nodes=$((SLURM_JOB_NUM_NODES - 1)) --ntasks=$((SLURM_JOB_NUM_NODES - 1)) --exclude="$head" \
        ray start --address="$address:$port" --num-cpus="$SLURM_CPUS_PER_TASK" --block &
    sleep 20
fi

srun --overlap --nodes=1 --ntasks=1 --nodelist="$head" \
    rpucluster run digits --cluster laptop --address "$address:$port" --out "$out" --checkpoint-every "5 min"
