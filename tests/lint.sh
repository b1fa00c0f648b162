#!/usr/bin/env bash
# Static analysis of the sources given: cppcheck on all at once, clang-tidy on each, JOBS at a time.
# Suppressed: readdir is safe on a stream that one thread has, and readdir_r is obsolete; cppcheck
# takes mmap's -1 for a wrong argument, a partial munmap for a release, and a cast of raw memory for a
# portability risk.
set -uo pipefail
: "${JOBS:=2}"
status=0
sources=()
for file in "$@"; do
    case $file in *.c) sources+=("$file") ;; esac
done
# CUDA's headers need not be here: those of the emulated device have the same names.
defines=(-I. -Itests/cuda_emu/include -D_GNU_SOURCE '-DINFERD_VERSION="0"')
cppcheck --quiet --error-exitcode=1 -j "$JOBS" --std=c11 --library=posix --inline-suppr \
    --enable=warning,portability --suppress=missingIncludeSystem --suppress=invalidFunctionArg \
    --suppress=deallocret --suppress=invalidPointerCast --suppress=readdirCalled \
    "${defines[@]}" "${sources[@]}" || status=1
# The SIMD files are compiled with flags of their own.
printf '%s\n' "${sources[@]}" | grep -v '/x86/' |
    xargs -P "$JOBS" -n 4 sh -c 'clang-tidy --quiet "$@" -- -std=c11 -I. -Itests/cuda_emu/include -D_GNU_SOURCE \
        "-DINFERD_VERSION=\"0\"" 2>/dev/null' lint || status=1
[ "$status" -eq 0 ] && echo "lint: ${#sources[@]} sources clean"
exit $status
