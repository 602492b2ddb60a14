#!/usr/bin/env bash
# One pod is one node: mythos train starts its ranks, forwards SIGTERM to them, and ends with the status of the rank that
# failed. torchrun would end with 1 for any failure of a rank, but the Job's policy depends on the statuses.
set -u
submission=${SUBMISSION:-/submission}

# lines are written to the log when they are printed, not when a buffer is full
export PYTHONUNBUFFERED=1
# the index of this node, and the address of the first pod, whose host name is set by the headless Service
export NODE_RANK=$JOB_COMPLETION_INDEX MASTER_ADDR={{master_address}} MASTER_PORT={{master_port}}
# each rank would otherwise start a thread for each CPU of the machine
export OMP_NUM_THREADS={{num_threads}}
# Triton's cache and the libraries' files in the home directory need a folder that any user_id may write to
export HOME=/tmp TRITON_CACHE_DIR=/tmp/triton
{{network}}

# copy the submission into the run's directory
if ((NODE_RANK == 0)); then
    copy={{run}}/submissions/{{number}}
    mkdir -p "$copy" && cp -L "$submission"/* "$copy"/ || exit 2
fi

# exec, since bash as the first process would not forward signals
exec python -m mythos.cli.main train --config-dir "$submission"
