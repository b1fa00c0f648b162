#!/usr/bin/env bash
# check_install.sh - installs into an empty tree and asks what came of it: every file there, the binary
# runs from its new place, the unit names that place, a second install keeps the configuration.
#   tests/deploy/check_install.sh BUILD
set -euo pipefail
cd "$(dirname "$0")/../.."
build=$1
stage=$(mktemp -d)
trap 'rm -rf "$stage"' EXIT

fail() {
    echo "check-install: $*" >&2
    exit 1
}
install_into() { make --no-print-directory BUILD="$build" DESTDIR="$stage" PREFIX=/opt/inferd install >/dev/null; }

install_into
for file in opt/inferd/bin/inferd opt/inferd/lib/systemd/system/inferd.service etc/inferd/inferd.json \
    etc/inferd/inferd.env opt/inferd/share/doc/inferd/LICENSE opt/inferd/share/doc/inferd/inferd.json; do
    [ -s "$stage/$file" ] || fail "$file is missing or empty"
done
unit=$stage/opt/inferd/lib/systemd/system/inferd.service
grep -q '^ExecStart=/opt/inferd/bin/inferd serve --config /etc/inferd/inferd.json$' "$unit" ||
    fail "the unit does not start /opt/inferd/bin/inferd"
[ "$(stat -c %a "$stage/etc/inferd/inferd.env")" = 600 ] || fail "inferd.env can be read by others"

bin=$stage/opt/inferd/bin/inferd
version=$(cd / && "$bin" --version) || fail "the installed binary does not run"
grep -Eq '[0-9]+\.[0-9]+\.[0-9]+' <<<"$version" || fail "--version says '$version'"
# The sample configuration must be valid as it is, but for MODEL.
if output=$(env -i "$bin" plan --config "$stage/etc/inferd/inferd.json" 2>&1); then
    fail "a plan without MODEL was accepted"
fi
grep -q 'no MODEL' <<<"$output" || fail "the sample configuration is refused: $output"
model=../shared/models/stories260K
if [ -d "$model" ]; then
    env -i "$bin" plan "$model" --config "$stage/etc/inferd/inferd.json" >/dev/null 2>"$stage/log" ||
        fail "plan failed: $(tail -n 3 "$stage/log")"
fi

echo '{"port": 1}' >"$stage/etc/inferd/inferd.json"
install_into
grep -q '"port": 1' "$stage/etc/inferd/inferd.json" || fail "a second install overwrote the configuration"
echo "check-install: the tree is complete and runs"
