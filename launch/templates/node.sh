#!/usr/bin/env bash
# One pod is one node: start its ranks, hand signals on to them, end with the status of the rank that failed.
# torchrun would end with 1 whatever its ranks end with, and the Job decides by their statuses.
set -u
num_devices={{num_devices}}
submission=${SUBMISSION:-/submission}

# lines reach the log when they are printed, not when a buffer is full
export PYTHONUNBUFFERED=1
# pods find the first one by the name that the headless Service gives it
export MASTER_ADDR={{master_address}} MASTER_PORT={{master_port}}
export WORLD_SIZE={{world_size}} LOCAL_WORLD_SIZE={{num_devices}} GROUP_RANK=$JOB_COMPLETION_INDEX
# Lightning takes the ranks from these variables, as below torchrun
export TORCHELASTIC_RUN_ID={{name}}
# each rank would otherwise start a thread for each CPU of the machine
export OMP_NUM_THREADS={{num_threads}}
# what is compiled at run time needs a place that this user may write to
export TORCH_EXTENSIONS_DIR=/tmp/torch_extensions TRITON_CACHE_DIR=/tmp/triton HOME=/tmp
{{network}}

# the run's directory keeps what the run was made from
if ((JOB_COMPLETION_INDEX == 0)); then
    kept={{run}}/submissions/{{number}}
    mkdir -p "$kept" && cp -L "$submission"/* "$kept"/ || exit 2
fi

ranks=()
for ((local_rank = 0; local_rank < num_devices; local_rank++)); do
    RANK=$((JOB_COMPLETION_INDEX * num_devices + local_rank)) LOCAL_RANK=$local_rank \
        python -m mythos.cli.main train --config-dir "$submission" &
    ranks+=($!)
done
# the ranks finish the step, save, and end with 77
trap 'kill -TERM "${ranks[@]}" 2>/dev/null' TERM
trap 'kill -USR1 "${ranks[@]}" 2>/dev/null' USR1

# the status of a child; a signal that is trapped interrupts wait
ending_of() {
    while kill -0 "$1" 2>/dev/null; do wait "$1"; done
    wait "$1"
}

# 75 says that another rank was lost; any other failure says why
status=0
for rank in "${ranks[@]}"; do
    ending_of "$rank"
    ended=$?
    ((ended != 0 && (status == 0 || status == 75))) && status=$ended
done
exit "$status"
