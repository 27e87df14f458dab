#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""Write the data file of a known kernel, from images of it and its symbol tables.

    tools/known_kernel.py linux-4.0.0-up up A.vmcore.xz=symbols.json -o physmem/structs/known/linux-4.0.0-up.json

Several ``IMAGE=SYMBOLS`` may be given, to prove that they are of one kernel: all
notes must have the same fingerprint and all tables the same addresses.  Builds
that differ outside the kernel proper may have the same note all the same; the
symbols in which they differ are left out by ``--without``, each by name; one that was found
otherwise is added by ``--with`` (``net_rand_state`` of the NUMA kernel: the 16 bytes of the per-cpu
area that go through prandom_u32's sequence between the images of n128_s16_fault; ``kernel_stack``: beside
``current_task``, the end of the stack whose frames free pages of n128cma_s17_contig still link to).
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from physmem.errors import PhysmemError, UsageError
from physmem.image import open_image
from physmem.structs.known import fingerprint
from physmem.structs.layout import Layout
from physmem.structs.linux_4_0 import CONFIGS, layout


def read_case(case: str, config: str) -> tuple[str, dict[str, str]]:
    """Fingerprint and symbols of one ``IMAGE=SYMBOLS``; the note must agree with the layout."""
    image_path, equals, symbols_path = case.partition("=")
    if not equals:
        raise UsageError(f"{case}: expected IMAGE=SYMBOLS")
    with open_image(image_path) as image:
        note = image.vmcoreinfo
        if conflicts := Layout.from_vmcoreinfo(note).conflicts(layout(CONFIGS[config])):
            raise UsageError(f"{image_path}: not a kernel of configuration {config}: {conflicts[0]}")
    try:
        addresses = json.loads(Path(symbols_path).read_bytes())["addresses"]
        symbols = {str(name): f"{int(address, 16):#x}" for name, address in addresses.items()}
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise UsageError(f"{symbols_path}: no table of addresses: {error}") from None
    return fingerprint(note), symbols


def gather(name: str, config: str, cases: list[str], without: list[str], extra: list[str]) -> dict[str, object]:
    """The data file's content, after checking that all cases agree."""
    (first, expected), *others = (read_case(case, config) for case in cases)
    for case, (found, symbols) in zip(cases[1:], others, strict=True):
        if found != first:
            raise UsageError(f"{case}: not the note of {cases[0]}")
        if moved := sorted({k for k, _ in expected.items() ^ symbols.items()} - set(without)):
            raise UsageError(f"{case}: other addresses than in {cases[0]}: {', '.join(moved)}")
    expected |= {symbol: address for symbol, _, address in (each.partition("=") for each in extra)}
    kept = {symbol: address for symbol, address in sorted(expected.items()) if symbol not in without}
    return {"name": name, "config": config, "fingerprint": first, "symbols": kept}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", help="what to call the kernel")
    parser.add_argument("config", choices=sorted(CONFIGS), help="its configuration")
    parser.add_argument("cases", nargs="+", metavar="IMAGE=SYMBOLS", help="an image and its symbols.json")
    parser.add_argument("--without", action="append", default=[], metavar="SYMBOL", help="a symbol to leave out")
    parser.add_argument(
        "--with", dest="extra", action="append", default=[], metavar="SYMBOL=ADDRESS", help="one that no table has"
    )
    parser.add_argument("-o", "--output", type=Path, required=True)
    args = parser.parse_args()
    try:
        data = gather(args.name, args.config, args.cases, args.without, args.extra)
    except PhysmemError as error:
        print(f"known_kernel: {error}", file=sys.stderr)
        return 2
    args.output.write_text(json.dumps(data, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
