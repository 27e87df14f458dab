# SPDX-License-Identifier: GPL-2.0-only
"""Linux 4.0's page allocator, running on the bytes of an emulated or a real machine's memory.

::

    from kernelmm import Machine
    from kernelmm.gfp import GFP_KERNEL

    m = Machine.attach("A.vmcore")
    page = m.alloc_pages(GFP_KERNEL, order=2)
    m.free_block(page, order=2)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import physmem  # noqa: F401  (decides, before any hot room is imported, which engine runs)

if TYPE_CHECKING:
    from kernelmm.debug.access import PageFault
    from kernelmm.debug.options import Debug
    from kernelmm.machine import Machine
    from kernelmm.study.reporter import VmBugOn

__all__ = ["Debug", "Machine", "PageFault", "VmBugOn"]


def __getattr__(name: str) -> object:
    # Not before they are asked for: they import hot rooms, and until then the engine can be chosen.
    if name == "Machine":
        from kernelmm.machine import Machine

        return Machine
    if name == "Debug":
        from kernelmm.debug.options import Debug

        return Debug
    if name == "PageFault":
        from kernelmm.debug.access import PageFault

        return PageFault
    if name == "VmBugOn":
        from kernelmm.study.reporter import VmBugOn

        return VmBugOn
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
