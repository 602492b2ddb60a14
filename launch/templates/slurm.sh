#!/bin/bash
#SBATCH --job-name={{name}}
#SBATCH --nodes={{num_nodes}}
#SBATCH --ntasks-per-node={{num_devices}}
{{directives}}
# SLURM starts the job again by itself when a node fails.
#SBATCH --requeue
# The shell below is told this long before the time limit, and where the cluster says so before a pre-emption.
#SBATCH --signal=B:USR1@{{signal_seconds}}
# One log over all starts of the job.
#SBATCH --open-mode=append
#SBATCH --output={{log}}
#SBATCH --chdir={{working_directory}}
set -u

submission={{submission}}
run={{run}}
max_restarts={{max_restarts}}
restart=${SLURM_RESTART_COUNT:-0}

# the code as it was at submission; without PYTHONSAFEPATH the working directory, often a checkout, would come first
export PYTHONPATH=$submission/code${PYTHONPATH:+:$PYTHONPATH} PYTHONSAFEPATH=1
# lines reach the log when they are printed, not when a buffer is full
export PYTHONUNBUFFERED=1
# ranks meet at the first node, by the address that SLURM itself reaches it at; the port differs between jobs that share
# the node and is below those given to clients
first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
MASTER_ADDR=$(scontrol show node "$first" | sed -n 's/.*NodeAddr=\([^ ]*\).*/\1/p')
export MASTER_ADDR MASTER_PORT=$((15000 + SLURM_JOB_ID % 15000))
export WORLD_SIZE=$SLURM_NTASKS LOCAL_WORLD_SIZE={{num_devices}}
# Lightning takes the ranks from the variables above, as below torchrun, and not from SLURM's; it would requeue by itself
export TORCHELASTIC_RUN_ID=$SLURM_JOB_ID
# each rank would otherwise start a thread for each CPU of the node
export OMP_NUM_THREADS={{num_threads}}
# compiled kernels go to the node's own disk: all ranks of all nodes would write them to one shared home
export MYTHOS_CACHE=/tmp/mythos-$UID
export TRITON_CACHE_DIR=$MYTHOS_CACHE/triton TORCHINDUCTOR_CACHE_DIR=$MYTHOS_CACHE/inductor
{{network}}

# "newest checkpoint, restarts when it was first seen": tells restarts that got further from those that did not
note_progress() {
    local newest
    newest=$(cat "$run/checkpoints/latest" 2>/dev/null || echo none)
    { read -r known since <"$submission/progress"; } 2>/dev/null || known=
    if [[ $newest != "$known" ]]; then
        since=$restart
        echo "$newest $since" >"$submission/progress"
    fi
}

# the status of a child; a signal that is trapped interrupts wait
ending_of() {
    while kill -0 "$1" 2>/dev/null; do wait "$1"; done
    wait "$1"
}

note_progress
echo "job $SLURM_JOB_ID, restart $restart, on $SLURM_JOB_NODELIST"

# --kill-on-bad-exit=0 --wait=0: a rank that ends first must not take those along that are still saving; ranks that
# lose one notice it within cluster.timeout_seconds
# what lies in the cache is run as code, and anybody may make folders in /tmp
# shellcheck disable=SC2016  # each task has its own numbers
srun --kill-on-bad-exit=0 --wait=0 --label bash -c \
    'mkdir -m 700 "$MYTHOS_CACHE" 2>/dev/null
    if [[ ! -d $MYTHOS_CACHE || ! -O $MYTHOS_CACHE || -L $MYTHOS_CACHE ]]; then
        echo "$MYTHOS_CACHE is not a folder of this user; remove it" >&2
        exit 2
    fi
    RANK=$SLURM_PROCID LOCAL_RANK=$SLURM_LOCALID GROUP_RANK=$SLURM_NODEID exec "$@"' rank \
    {{python}} -m mythos.cli.main train --config-dir "$submission" &
step=$!
# srun hands signals on to its tasks: they finish the step, save, and end with 77
trap 'kill -USR1 "$step"' USR1
trap 'kill -TERM "$step"' TERM
ending_of "$step"
status=$?
note_progress

# 75 a peer was lost, 77 saved and told to end, 78 stalled, above 128 killed; not 0, nor 76 (diverged), nor 2 (refused)
if ! ((status == 75 || status == 77 || status == 78 || status > 128)); then
    echo "job $SLURM_JOB_ID ended with status $status"
    exit "$status"
fi
if ((restart - since >= max_restarts)); then
    echo "job $SLURM_JOB_ID ended with status $status and gives up: $((restart - since)) restarts, no new checkpoint"
    exit "$status"
fi
if ((status != 77)); then
    delay=$((10 * 2 ** (restart - since)))
    sleep $((delay < 300 ? delay : 300))
fi
echo "job $SLURM_JOB_ID ended with status $status and is requeued"
scontrol requeue "$SLURM_JOB_ID"
exit "$status"
