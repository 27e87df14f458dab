# SPDX-License-Identifier: GPL-2.0-only
"""``python -m tools.oracle``: run page scripts on a real Linux 4.0, and again on ours; say where they differ.

A recipe (``--list``) is a kind of script and a guest to run it on; each seed makes another script.  The folder gets
a case for each, in the form of ``tests/data/oracle``; those without differences are deleted, unless ``--keep`` says
otherwise.  The exit status is 1 if there are differences.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from pathlib import Path

from physmem.errors import PhysmemError
from tools.oracle.case import engines, judge_with, record
from tools.oracle.guest import Guest
from tools.oracle.scripts import RECIPES, make

_SHOWN = 20


def main() -> int:
    example = "example: python -m tools.oracle kernel -o cases --recipe cpus --recipe dma --seeds 1-20"
    parser = argparse.ArgumentParser(prog="python -m tools.oracle", description=__doc__, epilog=example)
    parser.add_argument("kernel", type=Path, nargs="?", help="folder of a kernel that tools/oracle/build.sh made")
    parser.add_argument("-o", "--output", type=Path, help="a folder, for the cases")
    parser.add_argument("--recipe", action="append", choices=tuple(RECIPES), help="default: all of them")
    parser.add_argument("--seeds", default="1", help="one, or first-last (default 1)")
    parser.add_argument("--count", type=int, help="length of the scripts; default: the recipe's")
    parser.add_argument("--script", type=Path, help="a script of one's own, on the guest of the recipe")
    parser.add_argument("--keep", action="store_true", help="keep the cases without differences too")
    parser.add_argument("--timeout", type=float, default=180.0, help="seconds for a guest (default 180)")
    parser.add_argument("--list", action="store_true", help="say what recipes there are")
    arguments = parser.parse_args()
    if arguments.list:
        for name, recipe in RECIPES.items():
            print(f"{name:16} {recipe.guest}")
        return 0
    if arguments.kernel is None or arguments.output is None:
        parser.error("a kernel and --output are needed")
    first, _, last = arguments.seeds.partition("-")
    different = False
    for name in arguments.recipe or RECIPES:
        for seed in range(int(first), int(last or first) + 1):
            recipe = RECIPES[name]
            script = arguments.script.read_text() if arguments.script else make(recipe, seed, arguments.count)
            case = arguments.output / f"{name}_{seed}"
            different |= _one(arguments, recipe.guest, script, case)
    return int(different)


def _one(arguments: argparse.Namespace, guest: Guest, script: str, case: Path) -> bool:
    """Record and judge one case; whether there are differences."""
    begin = time.monotonic()
    record(arguments.kernel, guest, script, case, arguments.timeout, ".xz" if arguments.keep else "")
    recorded = time.monotonic()
    found = {name: judge_with(name, arguments.kernel, case) for name in engines()}
    lines = (case / "result.txt").read_text().splitlines()
    failed = sum(line.startswith("a -1 ") for line in lines)
    times = f"{recorded - begin:.0f} s + {time.monotonic() - recorded:.0f} s"
    wrong = {name: said for name, said in found.items() if said}
    verdict = f"DIFFERENT ({', '.join(wrong)})" if wrong else "same"
    print(f"{case.name}: {len(lines)} operations, {failed} failed allocations, {times}: {verdict}", flush=True)
    for said in wrong.values():
        print("\n".join(f"    {line}" for line in said[:_SHOWN]))
    if not wrong and not arguments.keep:
        shutil.rmtree(case)
    return bool(wrong)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (PhysmemError, OSError, ValueError) as error:
        print(f"oracle: {error}", file=sys.stderr)
        sys.exit(2)
