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
from physmem.structs.linux_4_0 import CONFIGS
from physmem.vmlinux import Vmlinux

__all__ = ["describe"]

#: What the recordings of 4.0.0 do without.
_MORE = {"kmemcheck_enabled", "printk_ratelimit_state", "lru_add_pvec"}


def describe(folder: Path) -> None:
    """Write the two files.

    :raises PhysmemError: the vmlinux cannot be read, or is of no known configuration
    """
    kernel = Vmlinux(folder / "vmlinux")
    declared = linux_4_0.recognise(kernel.layout, "vmemmap_populate" in kernel.symbols)
    if declared is None:
        why = {name: linux_4_0.differs(linux_4_0.layout(config), kernel.layout) for name, config in CONFIGS.items()}
        raise UsageError(f"{kernel.path}: of no known configuration: {why}")
    wanted = {symbol for each in known.kernels() if each.name.startswith("linux-4.0.0") for symbol in each.symbols}
    wanted |= _MORE
    symbols = {symbol: f"{kernel.symbols[symbol]:#x}" for symbol in sorted(wanted) if symbol in kernel.symbols}
    (folder / "layout.json").write_text(declared.to_json())
    (folder / "symbols.json").write_text(json.dumps({"addresses": symbols}, indent=1) + "\n")
    print(f"{kernel.path}: {declared.source}, {len(symbols)} symbols")


if __name__ == "__main__":
    try:
        describe(Path(sys.argv[1]))
    except PhysmemError as error:
        sys.exit(f"kernel: {error}")
