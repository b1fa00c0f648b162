#!/usr/bin/env bash
# Measures the shapes of the baseline with random weights and prints one Markdown row for each.
#   tests/bench/run.sh [INFERD [SHAPE...]]     default: build/inferd, the shapes in ../shared/shapes
#   BENCH_ARGS=...  more options for inferd bench, e.g. --num-threads 2
set -euo pipefail
inferd=${1:-build/inferd}
shift || true
shapes=("$@")
[ ${#shapes[@]} -gt 0 ] || shapes=(../shared/shapes/llama-3.2-1b ../shared/shapes/smollm2-135m)
echo '| shape | dtype | device | prefill 512 | decode, batch 1 | batch 8 | batch 32 | weights at batch 1 |'
echo '| --- | --- | --- | --- | --- | --- | --- | --- |'
for shape in "${shapes[@]}"; do
    if [ ! -f "$shape/config.json" ]; then
        echo "bench: no $shape/config.json, skipped" >&2
        continue
    fi
    # shellcheck disable=SC2086 # BENCH_ARGS is a list of words
    "$inferd" bench "$shape" --load-format dummy --dtype bfloat16 --bench-input-len 512 \
        --bench-batch-size 1,8,32 --log-level warning --json ${BENCH_ARGS:-} |
        python3 -c '
import json, os, sys
r = json.load(sys.stdin)
speeds = [row["tokens_per_second"] for row in r["prefill"] + r["decode"]]
cells = [f"{s:.1f} tok/s" for s in speeds]
gb = r["decode"][0]["weight_gb_per_second"]
row = [os.path.basename(r["model"]), r["dtype"], r["device"], *cells, f"{gb:.1f} GB/s"]
print("|", " | ".join(row), "|")'
done
