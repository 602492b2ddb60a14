#!/bin/bash
#SBATCH --job-name={{name}}
#SBATCH --nodes={{num_nodes}}
#SBATCH --ntasks-per-node={{num_devices}}
{{directives}}
# SLURM requeues the job by itself when a node fails.
#SBATCH --requeue
# The shell below gets this signal before the time limit and, if the cluster is configured so, before a pre-emption.
#SBATCH --signal=B:USR1@{{signal_seconds}}
# One log for all starts of the job.
#SBATCH --open-mode=append
#SBATCH --output={{log}}
#SBATCH --chdir={{working_directory}}
set -u

# srun forwards signals to its tasks: they finish the step, save, and end with 77; a signal that comes before there is an
# srun is remembered
step='' asked=''
# shellcheck disable=SC2329  # the traps call it
stop() {
    asked=$1
    if [[ -n $step ]]; then kill -"$1" "$step" 2>/dev/null; fi
}
trap 'stop USR1' USR1
trap 'stop TERM' TERM

submission={{submission}}
run={{run}}
max_restarts={{max_restarts}}
restart=${SLURM_RESTART_COUNT:-0}

# the code at the time of submission; without PYTHONSAFEPATH the working directory, often a checkout, would come first
export PYTHONPATH=$submission/code${PYTHONPATH:+:$PYTHONPATH} PYTHONSAFEPATH=1
# lines are written to the log when they are printed, not when a buffer is full
export PYTHONUNBUFFERED=1
# ranks connect to the first node, at the address that SLURM itself uses; the port differs between jobs that share the
# node and is below the ephemeral ports
first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
MASTER_ADDR=$(scontrol show node "$first" | sed -n 's/.*NodeAddr=\([^ ]*\).*/\1/p')
export MASTER_ADDR MASTER_PORT=$((15000 + SLURM_JOB_ID % 15000))
export WORLD_SIZE=$SLURM_NTASKS LOCAL_WORLD_SIZE={{num_devices}}
# Lightning takes the ranks from the variables above, as under torchrun, and not from SLURM's, with which it would requeue
export TORCHELASTIC_RUN_ID=$SLURM_JOB_ID
# each rank would otherwise start a thread for each CPU of the node
export OMP_NUM_THREADS={{num_threads}}
# compiled kernels are cached on the node's own disk instead of the shared home directory
export MYTHOS_CACHE=/tmp/mythos-$UID
export TRITON_CACHE_DIR=$MYTHOS_CACHE/triton TORCHINDUCTOR_CACHE_DIR=$MYTHOS_CACHE/inductor
{{network}}

# writes "newest checkpoint, restart count when it was first seen", to distinguish restarts with and without progress
record_progress() {
    local newest
    newest=$(cat "$run/checkpoints/latest" 2>/dev/null || echo none)
    { read -r known since <"$submission/progress"; } 2>/dev/null || known=
    if [[ $newest != "$known" ]]; then
        since=$restart
        echo "$newest $since" >"$submission/progress"
    fi
}

# waits for a child and returns its status; a trapped signal interrupts wait
wait_for() {
    while kill -0 "$1" 2>/dev/null; do wait "$1"; done
    wait "$1"
}

record_progress
echo "job $SLURM_JOB_ID, restart $restart, on $SLURM_JOB_NODELIST"

status=77 # asked to stop before there were ranks
if [[ -z $asked ]]; then
    # --kill-on-bad-exit=0 --wait=0: when a rank ends, ranks that are still saving must not be killed; ranks that lose a
    # peer notice it within cluster.timeout_seconds
    # the content of the cache is run as code, and any user may create folders in /tmp
    # shellcheck disable=SC2016  # the variables are those of each task
    srun --kill-on-bad-exit=0 --wait=0 --label bash -c \
        'mkdir -m 700 "$MYTHOS_CACHE" 2>/dev/null
        if [[ ! -d $MYTHOS_CACHE || ! -O $MYTHOS_CACHE || -L $MYTHOS_CACHE ]]; then
            echo "$MYTHOS_CACHE is not a folder of this user; remove it" >&2
            exit 2
        fi
        RANK=$SLURM_PROCID LOCAL_RANK=$SLURM_LOCALID GROUP_RANK=$SLURM_NODEID exec "$@"' rank \
        {{python}} -m mythos.cli.main train --config-dir "$submission" &
    step=$!
    if [[ -n $asked ]]; then kill -"$asked" "$step"; fi
    wait_for "$step"
    status=$?
    # the signal killed srun, or ranks that did not handle it yet: nothing was lost
    if [[ -n $asked ]] && ((status == 128 + $(kill -l "$asked"))); then status=77; fi
fi
record_progress

# 75 lost a peer, 77 asked to stop and saved, 78 stalled, above 128 killed; not 0, 76 (diverged) or 2 (refused)
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
    # a signal ends wait, but would not end sleep
    sleep $((delay < 300 ? delay : 300)) &
    wait "$!"
fi
echo "job $SLURM_JOB_ID ended with status $status and is requeued"
scontrol requeue "$SLURM_JOB_ID"
exit "$status"
