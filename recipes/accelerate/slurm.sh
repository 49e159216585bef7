#!/bin/bash
# Train recipes on several machines under SLURM, and go on behind each time limit. From the folder that holds recipes/:
#
#     sbatch recipes/accelerate/slurm.sh recipes/image/cifar10.py
#     sbatch --nodes 4 --gpus-per-node 4 --time 4:00:00 recipes/accelerate/slurm.sh recipes/image/cifar10.py --epochs 90
#
# What stands behind the script's name is given to `distill train`, with `--resume auto`. The folder must be one that
# all machines see. Load modules and activate the environment where it says so below.
#
# Two minutes before its time limit the job is told to save, ends, and is put into the queue again. SLURM tells this
# script (B:USR1), which tells the tasks, each of which tells its launcher by SIGTERM, the one signal that all launchers
# hand on to the training processes; those save and end. The launcher makes their exit code 75 (stopped, saved) into 1,
# so it is the signal, not the code, that decides here whether the job goes on. A job that fails is not put back.
#
# Tested: with srun, scontrol and scancel replaced by scripts, for two nodes, up to a run of two CPU processes. Not run
# under SLURM.
#
#SBATCH --job-name=distill
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=32
#SBATCH --time=24:00:00
#SBATCH --signal=B:USR1@120
#SBATCH --requeue
#SBATCH --output=%x-%j.out
#SBATCH --open-mode=append
set -euo pipefail

# Modules and the environment: `module load cuda`, `source .venv/bin/activate`.

config=recipes/accelerate/several_machines.yaml
if [ $# -eq 0 ] || [ ! -f "$config" ]; then
    echo "slurm.sh: name a recipe, and submit from the folder that holds $config." >&2
    exit 2
fi
read -r first < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
processes=$((SLURM_NNODES * SLURM_GPUS_ON_NODE))
port=$((20000 + SLURM_JOB_ID % 10000)) # jobs that share a machine do not meet
# Seconds that a launcher leaves its processes to save in before it kills them; older ones leave 30 whatever it says.
export TORCH_ELASTIC_SHUTDOWN_TIMEOUT=100

# One task a node. $SLURM_NODEID is escaped: here it is this node's, and each task has its own. USR1 reaches a task's
# first process and, where SLURM tracks processes by other means than cgroups, all of them, which it would end: so it is
# ignored by what the task starts. A task that was told to stop ends with 0, or --kill-on-bad-exit would stop the others
# while they save.
task="
    trap '' USR1
    accelerate launch --config_file $config --num_machines $SLURM_NNODES --num_processes $processes \
        --machine_rank \$SLURM_NODEID --main_process_ip $first --main_process_port $port \
        -m distill train \"\$@\" --resume auto &
    launcher=\$! stopped=
    trap 'stopped=1; kill -TERM \$launcher' USR1 TERM
    code=0
    wait \$launcher || code=\$?
    while kill -0 \$launcher 2> /dev/null; do
        code=0
        wait \$launcher || code=\$?
    done
    [ -n \"\$stopped\" ] || exit \$code
"

stopped=
trap 'stopped=1; scancel --signal=USR1 "$SLURM_JOB_ID" || true' USR1
srun --ntasks="$SLURM_NNODES" --ntasks-per-node=1 --cpus-per-task="${SLURM_CPUS_PER_TASK:-1}" --kill-on-bad-exit=1 \
    bash -c "$task" task "$@" &
step=$!
code=0
wait "$step" || code=$?
while kill -0 "$step" 2> /dev/null; do # the signal ended the wait, not the step
    code=0
    wait "$step" || code=$?
done
if [ -n "$stopped" ]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
