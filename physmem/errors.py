# SPDX-License-Identifier: GPL-2.0-only
"""Every exception of the package.

This room is never compiled: both engines must raise the *same* class.  The
message of each exception is one line that says where, what and why; the
command line prints it and exits with status 2.
"""

from __future__ import annotations

import os

__all__ = [
    "MEMORY_FAULTS",
    "AbsentError",
    "AddressError",
    "BudgetError",
    "CorruptionError",
    "ImageError",
    "LayoutError",
    "PanicError",
    "PhysmemError",
    "SymbolError",
    "UnsupportedError",
    "UsageError",
    "memory_fault",
]

#: What a hot room raises when a number found in memory leads it out of memory, or does not fit where it is stored.
MEMORY_FAULTS = (IndexError, OverflowError, ValueError)


class PhysmemError(Exception):
    """Base of everything this package raises on purpose."""


class UsageError(PhysmemError):
    """The caller asked for something that cannot be: a bad option, script or argument."""


class ImageError(PhysmemError):
    """A memory image is malformed, truncated or of an unsupported kind.

    :param path: the file
    :param reason: what is wrong, in words
    :param offset: where in the file, in bytes, if known
    """

    def __init__(self, path: str | os.PathLike[str], reason: str, offset: int | None = None) -> None:
        where = f"{os.fspath(path)}: " if offset is None else f"{os.fspath(path)}: offset {offset:#x}: "
        super().__init__(where + reason)
        self.path = os.fspath(path)
        self.reason = reason
        self.offset = offset


class LayoutError(PhysmemError):
    """A struct, field, enumerator or constant is unknown, or has an unsupported value."""


class SymbolError(PhysmemError):
    """The address of a kernel symbol is unknown."""


class UnsupportedError(PhysmemError):
    """Something that a real kernel would do and this version does not model."""


class BudgetError(PhysmemError):
    """A loop that a real kernel does not bound has taken as many steps as it may: it would hang."""


class PanicError(PhysmemError):
    """A real kernel would have panicked."""


class AddressError(PhysmemError):
    """An address is not one that the emulated machine can translate.

    :param address: the offending (virtual or physical) address
    :param reason: what is wrong with it
    """

    def __init__(self, address: int, reason: str) -> None:
        super().__init__(f"address {address:#x}: {reason}")
        self.address = address
        self.reason = reason


class AbsentError(PhysmemError):
    """The image does not contain this memory.  Absent is not zero.

    :param phys: first absent physical address
    :param size: bytes that were asked for
    :param what: what they were to be, if that is known
    """

    def __init__(self, phys: int, size: int, what: str | None = None) -> None:
        asked = f"{size} bytes were asked for" if what is None else f"it is part of: {what}"
        super().__init__(f"physical {phys:#x}: absent from the image ({asked})")
        self.phys = phys
        self.size = size


class CorruptionError(PhysmemError):
    """A structure in the memory image contradicts itself.

    :param rule: name of the rule that is broken (as ``physmem check`` names it)
    :param detail: the values that break it
    :param pfn: page frame number of the page concerned, if there is one
    """

    def __init__(self, rule: str, detail: str, pfn: int | None = None) -> None:
        super().__init__(f"{rule}: {detail}" if pfn is None else f"pfn {pfn}: {rule}: {detail}")
        self.rule = rule
        self.detail = detail
        self.pfn = pfn


def memory_fault(operation: str) -> CorruptionError:
    """What one of :data:`MEMORY_FAULTS` is to the caller of an operation; their own text depends on the engine."""
    return CorruptionError("memory_access", f"{operation}: a value in memory leads out of its bounds")
