# SPDX-License-Identifier: GPL-2.0-only
"""The command line ``physmem VERB IMAGE ...``: one module a verb, and what they share in ``common``."""

from __future__ import annotations

from physmem.cli.common import Program

__all__ = ["main"]

_VERBS = {
    verb: f"physmem.cli.{verb}"
    for verb in (
        *("info", "buddyinfo", "pagetypeinfo", "zoneinfo", "meminfo", "vmstat", "iomem"),
        *("fragmentation", "pcp", "pages", "page", "vtop", "check"),
        *("map", "diff", "convert", "distill", "layout", "survey"),
    )
}

main = Program("physmem", _VERBS, "Open the memory image of a Linux machine, and see how it uses its memory.")
