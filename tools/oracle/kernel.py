# SPDX-License-Identifier: GPL-2.0-only
"""``python -m tools.oracle.kernel FOLDER``: layout.json and symbols.json of the vmlinux in a folder.

The structs are compared field by field with those that DWARF tells; constants, which it does not tell, are those of
the configuration of Linux 4.0 that has the same structs.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from physmem.errors import PhysmemError, UsageError
from physmem.structs import known, linux_4_0
from physmem.structs.layout import Layout
from physmem.vmlinux import Vmlinux

__all__ = ["describe"]


def differs(declared: Layout, linked: Layout) -> str:
    """The first field, or size, in which a declared layout is not the one that was linked; "" if there is none."""
    for tag, struct in declared.structs.items():
        if not linked.has(tag):
            continue
        if linked.sizeof(tag) != struct.size:
            return f"sizeof({tag}) is {linked.sizeof(tag)}"
        for field in struct.fields:
            if not linked.has(tag, field) or linked.offsetof(tag, field) != declared.offsetof(tag, field):
                return f"{tag}.{field} is elsewhere"
    return ""


def describe(folder: Path) -> None:
    """Write the two files.

    :raises PhysmemError: the vmlinux cannot be read, or is of no known configuration
    """
    kernel = Vmlinux(folder / "vmlinux")
    # The memory models with the same structs differ in one function.
    vmemmap = "vmemmap_populate" in kernel.symbols
    why = {}
    for name, config in linux_4_0.CONFIGS.items():
        declared = linux_4_0.layout(config)
        why[name] = differs(declared, kernel.layout)
        if not why[name] and config.sparsemem_vmemmap == vmemmap:
            break
    else:
        raise UsageError(f"{kernel.path}: of no known configuration: {why}")
    wanted = {symbol for each in known.kernels() if each.name.startswith("linux-4.0.0") for symbol in each.symbols}
    symbols = {symbol: f"{kernel.symbols[symbol]:#x}" for symbol in sorted(wanted) if symbol in kernel.symbols}
    (folder / "layout.json").write_text(declared.to_json())
    (folder / "symbols.json").write_text(json.dumps({"addresses": symbols}, indent=1) + "\n")
    print(f"{kernel.path}: configuration {name}, {len(symbols)} symbols")


if __name__ == "__main__":
    try:
        describe(Path(sys.argv[1]))
    except PhysmemError as error:
        sys.exit(f"kernel: {error}")
