# SPDX-License-Identifier: GPL-2.0-only
"""Whether the computer that emulates a machine has room for what booting it touches.

Memory that nobody touches costs nothing, but the free list of the largest blocks runs through the first
``struct page`` of each of them: a page of the host's for every 4 MiB.  Not deferred, the page array is written whole.
A host that runs out kills us, or somebody else; better to say so at first.
"""

from __future__ import annotations

from physmem import abi
from physmem.errors import UsageError

__all__ = ["available", "check", "needed"]

_MEMINFO = "/proc/meminfo"
_PAGE = 4096
#: The image of the kernel, the emulator itself, tables of a fixed size.
_FIXED = 64 << 20


def needed(ram: int, deferred: bool) -> int:
    """Bytes of the host's memory that a machine with ``ram`` bytes has touched when it is up, at least."""
    pages = ram // _PAGE
    heads = pages >> (abi.MAX_ORDER - 1)
    return heads * _PAGE if deferred else pages * abi.SIZEOF_PAGE


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


def check(ram: int, deferred: bool) -> None:
    """See to it that a machine with ``ram`` bytes finds room.

    :raises UsageError: it does not
    """
    need, there = needed(ram, deferred), available()
    if there is not None and need > _FIXED and need > there:
        raise UsageError(
            f"a machine of {ram / (1 << 40):.2f} TiB takes {need / (1 << 30):.1f} GiB of this computer's memory "
            f"for its struct pages, and {there / (1 << 30):.1f} GiB are available"
        )
