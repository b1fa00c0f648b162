#!/usr/bin/env bash
# Runs each cmocka program given, JOBS at a time, stops at nothing, and ends with one line that
# counts the tests. A program that dies counts as one failure. With COUNTS=FILE the numbers go there.
#   VERBOSE=1 shows the output of programs that pass too.
set -u
: "${JOBS:=2}"
logs=$(mktemp -d)
trap 'rm -rf "$logs"' EXIT

run_one() { # index program
    "$2" >"$logs/$1.out" 2>&1
    echo $? >"$logs/$1.rc"
}

index=0
for program in "$@"; do
    while [ "$(jobs -rp | wc -l)" -ge "$JOBS" ]; do wait -n; done
    run_one $index "$program" &
    index=$((index + 1))
done
wait

count() { # word file: the number cmocka printed behind it
    sed -n "s/^\[  $1 *\] \([0-9]*\) test(s).*/\1/p" "$2" | awk '{ n += $1 } END { print n + 0 }'
}

passed=0 failed=0 skipped=0 failures=() index=0
for program in "$@"; do
    log=$logs/$index.out rc=$(cat "$logs/$index.rc")
    index=$((index + 1))
    bad=$(count FAILED "$log")
    [ "$rc" -eq 0 ] || [ "$bad" -gt 0 ] || bad=1
    passed=$((passed + $(count PASSED "$log")))
    skipped=$((skipped + $(count SKIPPED "$log")))
    failed=$((failed + bad))
    if [ "$bad" -gt 0 ]; then
        failures+=("$program (exit code $rc)")
        cat "$log"
    else
        [ -z "${VERBOSE:-}" ] || cat "$log"
        grep -ah '^skip:' "$log" | sort -u | sed "s|^|$(basename "$program"): |"
    fi
done
for program in ${failures[@]+"${failures[@]}"}; do echo "failed: $program"; done
[ -z "${COUNTS:-}" ] || echo "$passed $failed $skipped" >"$COUNTS"
echo "unit tests: $passed passed, $failed failed, $skipped skipped in $# programs"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
