#!/usr/bin/env bash
# Everything that wants a real GPU: the op tables, under compute-sanitizer too, whole-model goldens, and
# the daemon with many clients. Ends with one line per part; fails where there is no GPU to test on.
#   BUILD=DIR VENV=DIR   as in run_all.sh
set -uo pipefail
: "${BUILD:=build}" "${VENV:=$BUILD/venv}"
if ! compgen -G '/dev/nvidia[0-9]*' >/dev/null; then
    echo "test-gpu: there is no GPU here (no /dev/nvidia0): nothing was tested"
    exit 2
fi
plugin=$(realpath "$BUILD/inferd_cuda.so") || { echo "test-gpu: no plug-in: nvcc is missing" && exit 2; }
sanitizer=$(command -v compute-sanitizer || ls /usr/local/cuda/bin/compute-sanitizer 2>/dev/null || true)
status=0
report() { # name, exit code
    if [ "$2" -eq 0 ]; then
        echo "test-gpu: $1: passed"
    else
        echo "test-gpu: $1: FAILED"
        status=1
    fi
}

export INFERD_TEST_PLUGIN=$plugin
JOBS=1 tests/run_unit.sh "$@"
report "ops against the CPU" $?
if [ -n "$sanitizer" ]; then
    for tool in memcheck racecheck; do
        bad=0
        for test in "$@"; do
            # A fixed seed: the two tools see the same shapes.
            INFERD_TEST_SEED=1 timeout 120 "$sanitizer" --tool "$tool" --error-exitcode 9 "$test" \
                >"$BUILD/sanitizer.log" 2>&1 || { bad=1 && tail -40 "$BUILD/sanitizer.log"; }
        done
        report "compute-sanitizer $tool" $bad
    done
else
    echo "test-gpu: compute-sanitizer: not run, it is not installed"
fi
INFERD_BIN=$(realpath "$BUILD/inferd") "$VENV/bin/python" -m pytest -q -ra \
    -o cache_dir="$BUILD/pytest_cache" tests/e2e/test_cuda.py tests/e2e/test_determinism.py \
    tests/e2e/test_api.py
report "goldens, and the daemon with 64 clients" $?
exit $status
