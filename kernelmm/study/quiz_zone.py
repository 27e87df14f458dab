# SPDX-License-Identifier: GPL-2.0-only
"""Questions about watermarks: a zone's numbers, and whether a request may take from it."""

from __future__ import annotations

from random import Random

from kernelmm.core import mmzone, vmstat, watermark
from kernelmm.machine import Machine
from kernelmm.study.explain import watch
from kernelmm.study.explain_model import Call
from kernelmm.study.explain_text import call_lines
from kernelmm.study.quiz_model import Lab, Question
from physmem import abi

__all__ = ["make"]

_MARKS = ("min", "low", "high")


def make(lab: Lab, random: Random) -> Question:
    """May a zone give a block away, if what it must keep is set so that the answer is not obvious?"""
    machine = lab.machine
    mm = machine.mm
    index = random.choice([i for i in range(mm.max_nr_zones) if mmzone.populated_zone(mm, 0, i)])
    zone = mmzone.populated_zone(mm, 0, index)
    z = mmzone.zone_off(mm, zone)
    free = vmstat.zone_page_state(mm, z, abi.NR_FREE_PAGES)
    machine.sysctl("min_free_kbytes", random.randrange(free // 2, 5 * free))
    which = random.randrange(3)
    high, harder = watermark.ALLOC_HIGH, watermark.ALLOC_HARDER
    flags = random.choice((0, 0, high, harder, high | harder))
    order = random.randrange(7)
    classzone = random.choice((index, watermark_classzone(machine)))
    marks = [watermark.wmark_pages(mm, z, each) for each in range(3)]
    reserves = [mm.as_s64[(z + mm.zone_lowmem_reserve + 8 * i) >> 3] for i in range(mm.max_nr_zones)]
    blocks = [mmzone.nr_free(mm, z, each) for each in range(abi.MAX_ORDER)]
    free_cma = vmstat.zone_page_state(mm, z, mm.nr_free_cma_pages) if mm.migrate_cma >= 0 else 0
    enough, calls = watch(machine, lambda: watermark.zone_watermark_ok(mm, z, order, marks[which], classzone, flags))
    name = machine.page(machine.pfn_to_page(mm.as_u64[(z + mm.zone_start_pfn) >> 3])).zone
    names = [each for each in ("ALLOC_HIGH", "ALLOC_HARDER") if flags & getattr(watermark, each)]
    given = [
        ("zone", f"{name}, NR_FREE_PAGES {free}, of them in CMA blocks {free_cma}"),
        ("watermarks", ", ".join(f"{mark} {pages}" for mark, pages in zip(_MARKS, marks, strict=True))),
        ("lowmem_reserve", f"{reserves} (by zone index)"),
        ("nr_free", f"{blocks} (blocks of order 0 to {abi.MAX_ORDER - 1})"),
        ("request", f"order {order}, against the {_MARKS[which]} mark, classzone index {classzone}"),
        ("alloc_flags", "|".join(names) or "none that changes the mark"),
    ]
    facts = {
        "free": free,
        "free_cma": free_cma,
        "marks": marks,
        "which": which,
        "lowmem_reserve": reserves,
        "nr_free": blocks,
        "order": order,
        "classzone": classzone,
        "high": bool(flags & high),
        "harder": bool(flags & harder),
    }
    asks = ["Is the request granted?", "Which comparison decides it, with which numbers?"]
    answers = ["yes" if enough else "no", _deciding(calls)]
    worked = list(call_lines(calls))
    solution = {"granted": bool(enough)}
    return Question(f"A request looks at the zone {name}.", given, asks, answers, worked, facts, solution)


def watermark_classzone(machine: Machine) -> int:
    """The index of the highest zone that a GFP_KERNEL request may use."""
    return max(i for i in range(machine.mm.max_nr_zones) if mmzone.populated_zone(machine.mm, 0, i))


def _deciding(calls: list[Call]) -> str:
    """The last comparison of the check, with its numbers."""
    found = ""
    for top in calls:
        for _, call in top.walk():
            if call.function == "leaves_enough":
                decisions = [line for line in call.lines if line.kind == "decision" and "<=" in line.code]
                found = f"{decisions[-1].code}: {decisions[-1].worked}"
    return found
