# SPDX-License-Identifier: GPL-2.0-only
"""Whether the computer that emulates a machine has room for what booting it touches.

Memory that nobody touches costs nothing, and of a page array that is deferred next to nothing is touched.  Not
deferred, it is written whole: 16 GiB for 1 TiB.  A host that runs out kills us, or somebody else; better to say so at
first.
"""

from __future__ import annotations

from physmem import abi
from physmem.errors import UsageError

__all__ = ["available", "check", "needed"]

_MEMINFO = "/proc/meminfo"
_PAGE = 4096
#: The image of the kernel, the emulator itself, tables of a fixed size.
_FIXED = 64 << 20


def needed(ram: int) -> int:
    """Bytes of the host's memory that the page array of a machine with ``ram`` bytes takes when it is written whole."""
    return ram // _PAGE * abi.SIZEOF_PAGE


def available() -> int | None:
    """Bytes that the host can give without swapping (``MemAvailable``); None: it does not tell."""
    try:
        with open(_MEMINFO) as file:
            for line in file:
                name, _, value = line.partition(":")
                if name == "MemAvailable":
                    return int(value.split()[0]) << 10
    except (OSError, ValueError, IndexError):
        pass
    return None


def check(ram: int) -> None:
    """See to it that a machine with ``ram`` bytes, whose page array is written whole, finds room.

    :raises UsageError: it does not
    """
    need, there = needed(ram), available()
    if there is not None and need > _FIXED and need > there:
        raise UsageError(
            f"a machine of {ram / (1 << 40):.2f} TiB takes {need / (1 << 30):.1f} GiB of this computer's memory "
            f"for its struct pages, and {there / (1 << 30):.1f} GiB are available"
        )
