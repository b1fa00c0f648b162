#!/usr/bin/env bash
# Runs each cmocka program given, stops at nothing, and ends with one line that counts them.
set -u
passed=0 failed=0 failures=()
for program in "$@"; do
    if output=$("$program" 2>&1); then
        passed=$((passed + 1))
        [ -z "${VERBOSE:-}" ] || printf '%s\n' "$output"
        grep -h 'SKIPPED\]\|^skip:' <<<"$output" | sort -u | sed "s|^|$program: |"
    else
        failed=$((failed + 1))
        failures+=("$program")
        printf '%s\n' "$output"
        echo "FAILED: $program"
    fi
done
for program in "${failures[@]:-}"; do [ -z "$program" ] || echo "failed: $program"; done
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
