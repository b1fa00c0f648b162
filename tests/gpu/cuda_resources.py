#!/usr/bin/env python3
"""cuda_resources.py - what nvcc made of the hot kernels: registers, spilled bytes, shared memory and
the warps that a multiprocessor holds of them, each against its bound. Needs no GPU: nvcc's report of
each file (-Xptxas -v) lies beside its object file."""
import argparse
import pathlib
import re
import subprocess
import sys

# Kernel (a regular expression for its name), threads of a block, dynamic shared memory in bytes,
# most registers, most spilled bytes (stores). Each row must fit a kernel of every architecture.
KERNELS = [
    (r"gemv_kernel<.*, 1>", 256, 0, 80, 128),
    (r"gemv_kernel<.*, 2>", 256, 0, 128, 128),
    (r"dense_kernel<.*, tile<128, 128, 2> ?>", 256, 65536, 240, 0),
    (r"dense_kernel<.*, tile<64, 32, 4> ?>", 256, 24576, 96, 32),
    (r"decode_kernel<.*, 64, 2>", 128, 39424, 96, 8),
    (r"decode_kernel<.*, 128, 2>", 128, 72192, 112, 0),
    (r"decode_kernel<.*, 256, 2>", 128, 137728, 176, 16),
    (r"decode_kernel<.*, 256, 1>", 128, 70144, 176, 0),
    (r"prefill_kernel<.*, 64>", 128, 36864, 240, 0),
    (r"prefill_kernel<.*, 128>", 128, 69632, 255, 32),
    (r"prefill_wide_kernel<.*, 4>", 128, 101376, 255, 0),
    (r"prefill_wide_kernel<.*, 8>", 256, 135168, 255, 0),
    (r"mla_decode_kernel<.*, mla_shape<64, 2> ?>", 256, 155136, 224, 0),
    (r"mla_prefill_kernel<.*, mla_shape<64, 2> ?>", 256, 155136, 232, 0),
    (r"norm_kernel<(true|false)>", 512, 0, 40, 0),
    (r"rotary_kernel", 256, 0, 40, 0),
    (r"sample_kernel", 512, 0, 64, 32),
]
REGISTERS = 65536  # of a multiprocessor, in pieces of 256 for a warp
SHARED = {"sm_80": 164 << 10, "sm_90a": 228 << 10}
ENTRY = re.compile(r"Compiling entry function '(\S+)' for '(\S+)'")
SPILLS = re.compile(r"(\d+) bytes spill stores")
USED = re.compile(r"Used (\d+) registers")
STATIC = re.compile(r"(\d+) bytes smem")


def read_reports(folder):
    """[(mangled name, architecture, registers, spilled bytes, static shared memory)]"""
    rows = []
    for path in sorted(folder.glob("*.cu.o.ptxas")):
        entry, spilled = None, 0
        for line in path.read_text().splitlines():
            if match := ENTRY.search(line):
                entry, spilled = match.groups(), 0
            elif match := SPILLS.search(line):
                spilled = int(match[1])
            elif entry and (match := USED.search(line)):
                static = STATIC.search(line)
                rows.append((*entry, int(match[1]), spilled, int(static[1]) if static else 0))
                entry = None
    return rows


def unreported(folder):
    """Object files that were made without a report."""
    return [path for path in sorted(folder.glob("*.cu.o"))
            if not path.with_name(path.name + ".ptxas").exists()]


def demangle(names):
    out = subprocess.run(["c++filt"], input="\n".join(names), capture_output=True, text=True,
                         check=True).stdout.splitlines()
    return [re.sub(r"^void ", "", name).split("(")[0] for name in out]


def warps(arch, threads, dynamic, registers, static):
    """That a multiprocessor holds; each block takes 1 KiB of shared memory more."""
    per_warp = (registers * 32 + 255) // 256 * 256
    by_registers = REGISTERS // (per_warp * threads // 32)
    by_shared = SHARED.get(arch, 100 << 10) // (dynamic + static + 1024)
    return min(by_registers, by_shared, 2048 // threads) * threads // 32


def main():
    args = argparse.ArgumentParser(description=__doc__)
    args.add_argument("folder", type=pathlib.Path, help="build/obj/kernels/cuda")
    args.add_argument("--table", action="store_true", help="the worst of each row, as Markdown")
    args = args.parse_args()
    rows = read_reports(args.folder)
    names = demangle([row[0] for row in rows])
    faults = [] if rows else [f"{args.folder} has no reports of nvcc: build there with `make cuda`"]
    for path in unreported(args.folder):
        faults.append(f"{path} has no report of nvcc: remove it and build again")
    if args.table:
        print("| kernel | architecture | registers | spilled bytes | shared memory | warps |")
        print("| --- | --- | --- | --- | --- | --- |")
    for pattern, threads, dynamic, most_registers, most_spilled in KERNELS if rows else []:
        found = [row for row, name in zip(rows, names) if re.fullmatch(pattern, name)]
        if not found:
            faults.append(f"no kernel is called {pattern}")
        for arch in sorted({row[1] for row in found}):
            of_arch = [row for row in found if row[1] == arch]
            registers, spilled, static = (max(row[i] for row in of_arch) for i in (2, 3, 4))
            if registers > most_registers or spilled > most_spilled:
                faults.append(f"{pattern} on {arch}: {registers} registers and {spilled} spilled "
                              f"bytes, at most {most_registers} and {most_spilled} are allowed")
            if args.table:
                held = warps(arch, threads, dynamic, registers, static)
                shown = pattern.replace("|", "\\|")
                print(f"| `{shown}` | {arch} | {registers} | {spilled} | {dynamic + static} | "
                      f"{held} |")
    for fault in faults:
        print(fault, file=sys.stderr)
    if not args.table and not faults:
        print(f"{len(rows)} kernels looked at, {len(KERNELS)} bounds kept")
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
