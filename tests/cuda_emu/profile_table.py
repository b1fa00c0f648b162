"""profile_table.py - the table of `make emu-profile`: what kernels ask of memory beyond the least for
the same bytes, by kernel and line.

    profile_table.py FILE [--all]

FILE is what EMU_PROFILE named (tests/cuda_emu/race/profile.h). A line whose accesses are as few as
can be is left out unless --all is given."""
import argparse
import csv


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("file")
    parser.add_argument("--all", action="store_true")
    args = parser.parse_args()
    with open(args.file, newline="") as f:
        rows = list(csv.DictReader(f, delimiter="\t"))
    for space, unit in ("global", "sectors"), ("shared", "wavefronts"):
        mine = [r for r in rows if r["access"].endswith(space)]
        total, least = (sum(int(r[k]) for r in mine) for k in ("units", "least"))
        print(f"{space} memory: {total} {unit}, {least} at least, in {len(mine)} lines")
        print(f"{'kernel':62} {'line':26} {'access':7} {'by warps':>9} {'bytes each':>10} {unit:>10} {'least':>9}")
        for r in sorted(mine, key=lambda r: int(r["least"]) - int(r["units"])):
            if r["units"] == r["least"] and not args.all:
                continue
            each = int(r["bytes"]) / int(r["warp_accesses"]) / float(r["lanes"])
            print(f"{r['kernel'][:62]:62} {r['line']:26} {r['access'].split()[0]:7} {r['warp_accesses']:>9} "
                  f"{each:>10.1f} {r['units']:>10} {r['least']:>9}")


main()
