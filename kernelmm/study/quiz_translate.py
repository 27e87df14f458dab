# SPDX-License-Identifier: GPL-2.0-only
"""Questions about addresses: the walk, the page frame, its ``struct page``."""

from __future__ import annotations

from random import Random

import numpy as np

from kernelmm.machine import Machine
from kernelmm.study.quiz_model import Lab, Question
from physmem import paging
from physmem.dump import Dump
from physmem.inspect.explain import AddressExplanation, explain_address
from physmem.memory_model import MemoryModel

__all__ = ["make"]

_ASKS = [
    "Take the address apart: which entry of each table, which offset?",
    "Which physical address is it, by the entries above? By which shortcut is it found as well?",
]
_ASK_SECTION = "Which page frame (PFN) is that, in which section (of 2^15 pages)?"
#: And last, by the memory model.
_ASK_PAGE = {
    MemoryModel.SPARSEMEM_VMEMMAP: [_ASK_SECTION, "Where is its struct page (64 bytes each, from vmemmap on)?"],
    MemoryModel.SPARSEMEM: [
        _ASK_SECTION,
        "Where is its struct page (64 bytes each)? section_mem_map is where that of PFN 0 would be.",
    ],
    MemoryModel.FLATMEM: [
        "Which page frame (PFN) is that?",
        "Where is its struct page (64 bytes each, from mem_map on)?",
    ],
}
_WRONG = ["Why does this address lead nowhere?", "What would have to be different?"]


def make(lab: Lab, random: Random) -> Question:
    """An address of the direct map or of the kernel's image; one in five leads nowhere."""
    machine = lab.machine
    dump = machine.dump
    wrong = random.random() < 0.2
    limit = dump.max_pfn << 12
    choice = random.randrange(3)
    if wrong:
        good = dump.page_offset + random.randrange(limit)
        va = (good ^ 1 << random.randrange(48, 64), good + (1 << 35), random.randrange(1 << 12, 1 << 40))[choice]
    elif choice == 0:
        va = dump.symbols["mem_section" if "mem_section" in dump.symbols else "vm_stat"] + 8 * random.randrange(64)
    else:
        va = dump.page_offset + random.randrange(limit)
    found = explain_address(dump, va)
    arrays = _page_arrays(dump)
    given = [
        ("top table", f"at physical {found.pgd:#x}, {found.nr_levels} levels"),
        ("regions", f"PAGE_OFFSET {dump.page_offset:#x}, __START_KERNEL_map {dump.start_kernel_map:#x}"),
        ("", ", ".join(f"{name} {value}" for name, value in {"phys_base": f"{dump.phys_base:#x}", **arrays}.items())),
        *_entries(machine, random, found),
    ]
    facts = {
        "va": hex(va),
        "pgd": hex(found.pgd),
        "page_offset": hex(dump.page_offset),
        "start_kernel_map": hex(dump.start_kernel_map),
        "phys_base": hex(dump.phys_base),
        **arrays,
        "entries": {label.removeprefix("entry at "): text for label, text in given if label.startswith("entry at ")},
    }
    text = f"The kernel uses the virtual address {va:016x}."
    solution: dict[str, object] = {"verdict": found.verdict, "agree": found.agree}
    if found.frame is None:
        answers = [found.problem or found.verdict, _remedy(found)]
        return Question(text, given, list(_WRONG), answers, str(found).splitlines(), facts, solution)
    frame = found.frame
    indexes = {level.step.level: level.step.index for level in found.levels}
    offset = found.fields[-1].value
    solution |= {"indexes": indexes, "offset": offset, "phys": hex(frame.phys), "pfn": frame.pfn}
    solution["page"] = None if frame.page is None else hex(frame.page)
    which = f"PFN {frame.pfn} ({frame.pfn:#x})"
    if dump.model is not MemoryModel.FLATMEM:
        solution["section"] = frame.pfn >> dump.layout.constant("PFN_SECTION_SHIFT")
        which += f", section {solution['section']}"
    answers = [
        ", ".join(f"{level} {index}" for level, index in indexes.items()) + f", offset {offset:#x}",
        f"{frame.phys:#x}; {found.shortcut} = {found.by_region:#x}",
        which,
        str(solution["page"]),
    ]
    return Question(text, given, [*_ASKS, *_ASK_PAGE[dump.model]], answers, str(found).splitlines(), facts, solution)


def _page_arrays(dump: Dump) -> dict[str, str]:
    """Where the page array begins, under the name that the memory model has for it; of sections, each one's."""
    if dump.model is not MemoryModel.SPARSEMEM:
        name = "mem_map" if dump.model is MemoryModel.FLATMEM else "vmemmap"
        return {name: f"{dump.mem_map:#x}"}
    bases = dump.section_bases
    return {f"section_mem_map of {nr}": f"{int(bases[nr]):#x}" for nr in np.flatnonzero(bases).tolist()}


def _entries(machine: Machine, random: Random, found: AddressExplanation) -> list[tuple[str, str]]:
    """The entries of the walk among others from the same tables, by address."""
    memory = machine.dump.memory
    shown: dict[int, int] = {}
    for level in found.levels:
        step = level.step
        for index in {step.index, *(random.randrange(512) for _ in range(2))}:
            shown[step.table + 8 * index] = memory.u64(step.table + 8 * index)
    return [(f"entry at {at:#x}", f"{value:#018x}") for at, value in sorted(shown.items())]


def _remedy(found: AddressExplanation) -> str:
    if found.verdict == "not canonical":
        top = 9 * found.nr_levels + 11
        bit = found.va >> top & 1
        mended = found.va & (1 << top + 1) - 1 | ((1 << 64) - (1 << top + 1) if bit else 0)
        assert paging.is_canonical(mended, found.nr_levels)
        return f"bits 63 to {top + 1} would have to be {bit}, as bit {top} is: {mended:#018x}"
    step = found.levels[-1].step
    return f"bit 0 (P) of the {step.level} entry at {step.at:#x} would have to be set"
