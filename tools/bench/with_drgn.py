# SPDX-License-Identifier: GPL-2.0-only
"""What drgn is asked to do in ``make bench-peers``: run as ``python with_drgn.py TASK IMAGE [VMLINUX | PLACES]``.

With debug information, as its users do it, by its own helpers: ``pages`` reads the flags word of every page,
``freelists`` walks all free lists.  Without, ``raw`` is told where the page array is (START:BYTES of physical
memory, with commas between; drgn has no way to find it then) and reads it in large pieces.  Each prints a count
of what it found.
"""

from __future__ import annotations

import importlib
import struct
import sys
from collections import Counter
from typing import Any

_STRUCT_PAGE = struct.Struct("<Q56x")
_PIECE = 4 << 20


def _program(image: str, vmlinux: str | None) -> Any:
    drgn = importlib.import_module("drgn")
    prog = drgn.Program()
    prog.set_core_dump(image)
    if vmlinux:
        prog.load_debug_info([vmlinux])
    return prog


def _pages(prog: Any) -> Counter[int]:
    mm = importlib.import_module("drgn.helpers.linux.mm")
    fault = importlib.import_module("drgn").FaultError
    found: Counter[int] = Counter()
    for page in mm.for_each_page(prog):
        try:
            found[page.flags.value_()] += 1
        except fault:
            continue
    return found


def _free_lists(prog: Any) -> Counter[int]:
    lists = importlib.import_module("drgn.helpers.linux.list")
    zones = importlib.import_module("drgn.helpers.linux.mmzone")
    found: Counter[int] = Counter()
    for pgdat in zones.for_each_online_pgdat(prog):
        for zone in pgdat.node_zones:
            for order, area in enumerate(zone.free_area):
                if zone.present_pages:
                    found[order] += sum(1 for head in area.free_list for _ in lists.list_for_each(head.address_of_()))
    return found


def _raw(prog: Any, places: str) -> Counter[int]:
    found: Counter[int] = Counter()
    for place in places.split(","):
        start, size = (int(number, 16) for number in place.split(":"))
        for at in range(start, start + size, _PIECE):
            data = prog.read(at, min(_PIECE, start + size - at), physical=True)
            found.update(flags for (flags,) in _STRUCT_PAGE.iter_unpack(data))
    return found


def main() -> None:
    """Do one task, and print what came of it."""
    task, image, other = sys.argv[1:4]
    if task == "raw":
        counts = _raw(_program(image, None), other)
    else:
        counts = {"pages": _pages, "freelists": _free_lists}[task](_program(image, other))
    print(len(counts), sum(counts.values()))


if __name__ == "__main__":
    main()
