#!/usr/bin/env bash
# One pod is one node: mythos train starts its ranks, hands SIGTERM on to them, and ends with the status of the one that
# failed. torchrun would end with 1 whatever its ranks end with, and the Job decides by their statuses.
set -u
submission=${SUBMISSION:-/submission}

# lines reach the log when they are printed, not when a buffer is full
export PYTHONUNBUFFERED=1
# which node this is, and where all meet: pods find the first one by the name that the headless Service gives it
export NODE_RANK=$JOB_COMPLETION_INDEX MASTER_ADDR={{master_address}} MASTER_PORT={{master_port}}
# each rank would otherwise start a thread for each CPU of the machine
export OMP_NUM_THREADS={{num_threads}}
# what Triton compiles, and what libraries keep at home, needs a place that any user_id may write to
export HOME=/tmp TRITON_CACHE_DIR=/tmp/triton
{{network}}

# the run's directory keeps what the run was made from
if ((NODE_RANK == 0)); then
    kept={{run}}/submissions/{{number}}
    mkdir -p "$kept" && cp -L "$submission"/* "$kept"/ || exit 2
fi

# bash as the first process would not hand signals on
exec python -m mythos.cli.main train --config-dir "$submission"
