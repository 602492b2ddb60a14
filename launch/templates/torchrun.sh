#!/usr/bin/env bash
# Start the ranks of one node: bash job.sh NODE, with 0 on the first.
set -u
node=${1:?the index of this node, 0 on the first}
cd {{working_directory}} || exit 2

# the code at the time of submission; without PYTHONSAFEPATH the working directory, often a checkout, would come first
export PYTHONPATH={{submission}}/code${PYTHONPATH:+:$PYTHONPATH} PYTHONSAFEPATH=1
# lines are written to the log when they are printed, not when a buffer is full
export PYTHONUNBUFFERED=1
# each rank would otherwise start a thread for each CPU of the node
export OMP_NUM_THREADS={{num_threads}}
# compiled kernels are cached on the node's own disk instead of the shared home directory
cache=/tmp/mythos-$UID
export TRITON_CACHE_DIR=$cache/triton TORCHINDUCTOR_CACHE_DIR=$cache/inductor
mkdir -m 700 "$cache" 2>/dev/null
if [[ ! -d $cache || ! -O $cache || -L $cache ]]; then
    echo "$cache is not a folder of this user, and its content is run as code; remove it" >&2
    exit 2
fi
# seconds that torchrun waits for ranks to save after it asked them to stop, before it kills them; default 30
export TORCH_ELASTIC_SHUTDOWN_TIMEOUT=600
{{network}}

exec {{python}} -m torch.distributed.run --nnodes {{num_nodes}} --node-rank "$node" --nproc-per-node {{num_devices}} \
    --master-addr {{master_address}} --master-port {{master_port}} \
    -m mythos.cli.main train --config-dir {{submission}}
