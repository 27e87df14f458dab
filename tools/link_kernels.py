#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""Write the data files of our own kernels, so that their dumps are recognised: run after a change to their variables.

    tools/link_kernels.py

Each is a configuration of Linux 4.0, linked for 16 MiB, or (``-low``) for machines that have no memory there.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from kernelmm.bringup.linker import LOW_START, PHYSICAL_START, link  # noqa: E402
from kernelmm.bringup.vmcoreinfo import vmcoreinfo  # noqa: E402
from physmem.structs.known import fingerprint  # noqa: E402
from physmem.structs.linux_4_0 import CONFIGS  # noqa: E402


def data(name: str, config: str, start: int) -> dict[str, object]:
    """The content of one file."""
    image = link(CONFIGS[config], start)
    note = vmcoreinfo(image.layout, image.symbols, image.release)
    symbols = {symbol: f"{address:#x}" for symbol, address in sorted(image.symbols.items())}
    return {"name": name, "config": config, "fingerprint": fingerprint(note), "symbols": symbols}


def main() -> None:
    for config in CONFIGS:
        for suffix, start in (("", PHYSICAL_START), ("-low", LOW_START)):
            name = f"kernelmm-4.0.0-{config}{suffix}"
            path = ROOT / "physmem" / "structs" / "known" / f"{name}.json"
            path.write_text(json.dumps(data(name, config, start), indent=1) + "\n")


if __name__ == "__main__":
    main()
