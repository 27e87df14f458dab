# SPDX-License-Identifier: GPL-2.0-only
"""Page table entries taken apart: every flag by its name, at the level where it has this meaning.

Facts: Intel SDM vol. 3, 4.5, tables 4-15 to 4-20; AMD APM vol. 2, 7.10 (memory encryption);
the software bits are Linux's (arch/x86/include/asm/pgtable_types.h).
"""

from __future__ import annotations

from dataclasses import dataclass

from physmem import paging

__all__ = ["EntryFlag", "Level", "access"]

_FLAGS = (
    (0, "P", "present"),
    (1, "RW", "writable"),
    (2, "US", "user mode may use it"),
    (3, "PWT", "write-through"),
    (4, "PCD", "not cached"),
    (5, "A", "accessed"),
    (6, "D", "written to"),
    (7, "PSE", "maps a page, not a table"),
    (8, "G", "global: survives a switch of address spaces"),
    (9, "SOFTW1", "software: special mapping"),
    (10, "SOFTW2", "software"),
    (11, "SOFTW3", "software: soft-dirty"),
    (63, "NX", "no instructions from here"),
)


@dataclass(frozen=True)
class EntryFlag:
    """A flag of an entry: its bit, its name, whether it is set, and what it says if it is."""

    bit: int
    name: str
    set: bool
    meaning: str


@dataclass(frozen=True)
class Level:
    """One level of a walk.

    :ivar step: as :func:`physmem.paging.steps` took it
    :ivar raw: the entry as it is in memory, with the encryption bit
    :ivar flags: all flags that an entry of this level has
    """

    step: paging.Step
    raw: int
    flags: tuple[EntryFlag, ...]

    @classmethod
    def of(cls, step: paging.Step, raw: int, sme_mask: int) -> Level:
        """Take an entry apart.

        :param sme_mask: the bit that says "encrypted", 0 where there is none
        """
        flags = [EntryFlag(bit, name, bool(raw >> bit & 1), text) for bit, name, text in _applicable(step)]
        if sme_mask:
            bit = sme_mask.bit_length() - 1
            flags.append(EntryFlag(bit, "SME", bool(raw & sme_mask), "what it points to is encrypted in memory"))
        return cls(step, raw, tuple(flags))

    @property
    def names(self) -> list[str]:
        """Names of the flags that are set."""
        return [flag.name for flag in self.flags if flag.set]

    @property
    def leads_to(self) -> str:
        """Where the entry leads, in words."""
        if not self.step.is_present:
            return "nowhere: not present"
        if self.step.is_leaf:
            frame = self.step.entry & paging.PTE_ADDRESS & -(1 << self.step.shift)
            return f"page of {SIZES[self.step.shift]} at {frame:#x}"
        return f"table at {self.step.entry & paging.PTE_ADDRESS:#x}"


#: Bytes that a leaf entry maps, by their log2.
SIZES = {12: "4 KiB", 21: "2 MiB", 30: "1 GiB"}


def _applicable(step: paging.Step) -> list[tuple[int, str, str]]:
    """The flags of an entry, given its level: some bits mean something in leaves only."""
    found = []
    for bit, name, text in _FLAGS:
        if name == "PSE" and step.shift == 12:
            found.append((7, "PAT", "memory type: page attribute table"))
        elif (name in ("D", "G") and step.is_present and not step.is_leaf) or (name == "PSE" and step.shift > 30):
            continue
        else:
            found.append((bit, name, text))
        if name == "G" and step.is_leaf and step.shift > 12:
            found.append((12, "PAT", "memory type: page attribute table"))
    return found


def access(levels: tuple[Level, ...]) -> str:
    """What all levels together allow: each must permit writing and user mode, any can forbid execution."""
    entries = [level.step.entry for level in levels]
    writable = all(entry >> 1 & 1 for entry in entries)
    user = all(entry >> 2 & 1 for entry in entries)
    execute = not any(entry >> 63 & 1 for entry in entries)
    return ", ".join(
        (
            "writable" if writable else "read-only",
            "user mode too" if user else "kernel mode only",
            "executable" if execute else "not executable",
        )
    )
