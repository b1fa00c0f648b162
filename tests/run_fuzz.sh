#!/usr/bin/env bash
# Runs each fuzz target for FUZZ_SECONDS from its committed corpus; fails at the first finding, whose
# input stays in BUILD/fuzz/.
#   tests/run_fuzz.sh BUILD TARGET...
set -euo pipefail
build=$1
shift
: "${FUZZ_SECONDS:=300}"
export UBSAN_OPTIONS=${UBSAN_OPTIONS:-print_stacktrace=1}
for target in "$@"; do
    grown=$build/fuzz/corpus/$target committed=tests/fuzz/corpus/$target
    mkdir -p "$grown"
    log=$build/fuzz/$target.log
    seeds=("$grown")
    [ ! -d "$committed" ] || seeds+=("$committed")
    echo "fuzz: $target, $FUZZ_SECONDS s"
    if ! "$build/fuzz/$target" -max_total_time="$FUZZ_SECONDS" -timeout=10 -rss_limit_mb=2048 \
        -print_final_stats=1 -artifact_prefix="$build/fuzz/$target-" "${seeds[@]}" >"$log" 2>&1; then
        tail -n 60 "$log"
        echo "fuzz: $target failed; see $log"
        exit 1
    fi
    grep -E 'stat::(number_of_executed_units|average_exec_per_sec|new_units_added)' "$log"
done
echo "fuzz: $# targets clean"
