#!/usr/bin/env bash
# Runs the unit tests given, then pytest on the daemon, and ends with one line that counts both.
#   BUILD=DIR       where the build, the virtual environment and the logs are
#   SAN=asan|tsan   a slower build: the daemon's tests wait longer
#   PYTEST_ARGS=... more arguments of pytest
set -u
: "${BUILD:=build}" "${VENV:=$BUILD/venv}"
status=0
rm -f "$BUILD/unit.counts" "$BUILD/pytest.xml"
COUNTS=$BUILD/unit.counts tests/run_unit.sh "$@" || status=1
# shellcheck disable=SC2086 # PYTEST_ARGS is a list of words
INFERD_BIN=$(realpath "$BUILD/inferd") INFERD_SANITIZED=${SAN:-} "$VENV/bin/python" -m pytest -q -ra \
    -o cache_dir="$BUILD/pytest_cache" --junitxml="$BUILD/pytest.xml" ${PYTEST_ARGS:-} tests ||
    status=1
"$VENV/bin/python" - "$BUILD" <<'END' || status=1
import sys
import xml.etree.ElementTree as tree

build = sys.argv[1]
passed, failed, skipped = map(int, open(f"{build}/unit.counts").read().split())
suite = tree.parse(f"{build}/pytest.xml").getroot().find("testsuite")
bad = int(suite.get("failures")) + int(suite.get("errors"))
out = int(suite.get("skipped"))
print(f"{passed + int(suite.get('tests')) - bad - out} passed, {failed + bad} failed, "
      f"{skipped + out} skipped")
sys.exit(failed + bad > 0)
END
exit $status
