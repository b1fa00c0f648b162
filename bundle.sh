#!/usr/bin/env bash
# bundle.sh - one folder that runs where nothing else is installed: the daemon, the CUDA plug-in if it
# was built, and every shared library they need but the C library's own and the GPU driver's; and NCCL,
# which the plug-in looks for when several GPUs share a model, if NCCL=FILE names its library.
#
#   ./bundle.sh PROGRAM PLUGIN OUT [TEST...]   PLUGIN may be ''; each TEST goes to OUT/tests
#
# PROGRAM was linked with the run path $ORIGIN/../lib, of the old kind that also holds for the
# libraries of its libraries. The tests are found by OUT/run-test, which names that folder to the loader.
set -euo pipefail
program=$1 plugin=$2 out=$3
shift 3

rm -rf "$out"
mkdir -p "$out/bin" "$out/lib" "$out/share"
install -m 755 "$program" "$out/bin/inferd"
[ -z "$plugin" ] || install -m 755 "$plugin" "$out/bin/inferd_cuda.so"
install -m 644 README.md LICENSE config/inferd.json systemd/inferd.service systemd/inferd.env \
    "$out/share"

objects=("$program" ${plugin:+"$plugin"})
if [ $# -gt 0 ]; then
    mkdir -p "$out/tests"
    for test in "$@"; do
        install -m 755 "$test" "$out/tests/$(basename "$test")"
        objects+=("$test")
    done
    cat >"$out/run-test" <<'END'
#!/bin/sh
# run-test NAME [ARGS]: one of tests/, with the libraries of this folder.
here=$(cd "$(dirname "$0")" && pwd)
name=$1
shift
LD_LIBRARY_PATH=$here/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH} exec "$here/tests/$name" "$@"
END
    chmod 755 "$out/run-test"
    # What tests and measures a GPU where the folder lies, with Python's standard library alone.
    mkdir -p "$out/gpu/golden" "$out/gpu/models"
    install -m 644 tests/gpu/*.py tests/bench/bench_startup.py tests/fixtures/make_tiny.py \
        tests/fixtures/golden_model.py tests/fixtures/daemon_process.py "$out/gpu"
    install -m 644 tests/golden/arch/*.json "$out/gpu/golden"
    cp -r tests/fixtures/shapes "$out/gpu/shapes"
    models=../shared/models
    if [ -f "$models/goldens.json" ]; then
        install -m 644 "$models/goldens.json" "$out/gpu/models"
        cp -r "$models/stories260K" "$out/gpu/models"
        chmod -R u+w "$out/gpu/models"
    fi
    for name in test-gpu:check_gpu bench-gpu:bench_gpu; do
        cat >"$out/${name%%:*}" <<END
#!/bin/sh
# ${name%%:*} [--help]: PYTHON names an interpreter other than python3.
here=\$(cd "\$(dirname "\$0")" && pwd)
export PATH="\${PATH:-/usr/local/bin:/usr/bin:/bin}" # without one Python does not know where it lies
exec "\${PYTHON:-python3}" -B "\$here/gpu/${name##*:}.py" "\$@"
END
        chmod 755 "$out/${name%%:*}"
    done
fi

if [ -n "$plugin" ] && [ -n "${NCCL:-}" ]; then
    install -m 644 "$NCCL" "$out/lib/libnccl.so.2"
    objects+=("$NCCL")
fi

# What belongs to the C library or comes with the driver is the machine's own.
of_the_machine() {
    case $1 in
    linux-vdso.* | ld-linux*.so* | libc.so.* | libm.so.* | libdl.so.* | librt.so.* | libpthread.so.* | \
        libresolv.so.* | libutil.so.* | libnsl.so.* | libanl.so.* | libmvec.so.* | libcuda.so.* | \
        libnvidia-*) return 0 ;;
    esac
    return 1
}

for object in "${objects[@]}"; do
    while read -r name arrow path _; do
        if [ -z "$name" ] || of_the_machine "$(basename "$name")"; then continue; fi
        if [ "$arrow" != "=>" ] || [ "$path" = not ]; then
            echo "bundle.sh: $object needs $name, which is not here" >&2
            exit 1
        fi
        [ -e "$out/lib/$name" ] || install -m 644 "$path" "$out/lib/$name"
    done < <(ldd "$object")
done
echo "bundle: $out, $(find "$out/lib" -type f | wc -l) libraries, $(du -sm "$out" | cut -f 1) MiB"
