#!/usr/bin/env bash
# The figures of a GPU: what copying reaches on it, then prefill and decode of two published shapes
# with random weights. Fails where there is no GPU to measure.
#   gpu.sh BUILD
set -euo pipefail
build=$1
shapes=../shared/shapes
if ! compgen -G '/dev/nvidia[0-9]*' >/dev/null; then
    echo "bench-gpu: there is no GPU here (no /dev/nvidia0): nothing was measured"
    exit 2
fi
"$build/tests/bench/bench_copy" "$build/inferd_cuda.so"
for shape in llama-3.2-1b llama-3.1-8b; do
    [ -d "$shapes/$shape" ] || { echo "bench-gpu: $shapes/$shape is not here, skipped" && continue; }
    echo "== $shape, bfloat16, random weights"
    "$build/inferd" bench "$shapes/$shape" --load-format dummy --device cuda --dtype bfloat16 \
        --max-model-len 33000 --max-num-batched-tokens 8192 --max-num-seqs 256 \
        --bench-input-len 512,8192,32768 --bench-batch-size 1,8,64,256 --bench-context-len 1024
done
