# SPDX-License-Identifier: GPL-2.0-only
"""Judge every kind of wrong free, then make it, and tell as JSON what was said and what happened: once an engine.

Usage: ``python wrong_frees.py IMAGE``
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from typing import Any

from kernelmm import Machine, VmBugOn, gfp
from kernelmm.validate.judge import Judge
from kernelmm.validate.kinds import KINDS, Call, judge, perform
from physmem import abi
from physmem.errors import PhysmemError
from physmem.inspect.check import check

#: All the memory there is.
ALL = gfp.GFP_ATOMIC | gfp.__GFP_NOWARN | gfp.__GFP_MEMALLOC | gfp.__GFP_MOVABLE


class Patient:
    """A machine to be treated badly, and restored."""

    def __init__(self, image: str) -> None:
        self.machine = m = Machine.attach(image)
        # Most of memory is set aside, so that what is left is soon handed out.
        for order in (10, 9, 8, 7):
            while m.alloc_pages(ALL, order) is not None:
                pass
        self.healthy = {start: m.ram.read(start, end - start) for start, end in m.ram.ranges}
        self.judge = Judge(m.dump)

    def restore(self) -> Machine:
        m = self.machine
        for start, data in self.healthy.items():
            m.ram.write(start, data)
        m.mm.set_cpu(0)
        m.debug_vm = False
        m.console.__init__(m.dump.layout, m.mm.hz)  # type: ignore[misc]
        return m

    def freed(self) -> int:
        """Pages freed so far (PGFREE)."""
        return self.machine.mm.as_u64[(self.machine.mm.vm_events + 8 * self.machine.mm.pgfree) >> 3]

    def bad(self) -> list[list[Any]]:
        """Pages reported as bad: PFN and reason."""
        lines = self.machine.console.lines
        pfns = [int(line.rpartition(":")[2], 16) for line in lines if line.startswith("BUG: Bad page")]
        return [list(pair) for pair in zip(pfns, [line[21:] for line in lines if "dumped" in line], strict=True)]

    def make(self, call: Call) -> dict[str, Any]:
        """Make the call: what the kernel did."""
        before = self.freed()
        try:
            perform(self.machine, call)
        except VmBugOn as bug:
            return {"fate": "bug", "where": f"{bug.file}:{bug.line}", "text": self.machine.console.lines[-2]}
        except PhysmemError as error:
            return {"fate": "fault", "text": type(error).__name__}
        if self.bad():
            return {"fate": "refused", "bad": self.bad()}
        return {"fate": "freed" if self.freed() > before else "not freed"}

    def surface(self, pfn: int) -> dict[str, Any]:
        """Go on until the damage shows: check the memory, then hand out every page that there is."""
        m = self.machine
        found: dict[str, Any] = {"rules": sorted(check(m.dump).counts)}
        m.console.lines.clear()
        got: Counter[int] = Counter()
        try:
            m.drain_all_pages()
            while (page := m.alloc_pages(ALL)) is not None:
                got[m.page_to_pfn(page)] += 1
        except PhysmemError as error:
            found["broke"] = type(error).__name__
        found["bad"] = self.bad()
        found["got"] = [p - pfn for p in range(pfn, pfn + 8) if got[p]]
        found["twice"] = sum(count > 1 for count in got.values())
        return found

    def free_owner(self, pfn: int) -> dict[str, Any]:
        """The block that the page is part of is freed as it should be."""
        m = self.machine
        head, order = next(
            (h, o) for o in range(1, abi.MAX_ORDER) for h in [pfn & -(1 << o)] if m.page(m.pfn_to_page(h))["_count"] > 0
        )
        compound = "head" in m.page(m.pfn_to_page(head)).flag_names
        order = m.page(m.pfn_to_page(head)).order if compound else 3
        m.console.lines.clear()
        m.free_block(m.pfn_to_page(head), order)
        found = {"at_free": self.bad()}
        return found | self.surface(pfn)


def one(patient: Patient, name: str) -> dict[str, Any]:
    kind = KINDS[name]
    m = patient.restore()
    call = kind.prepare(m)
    before = {start: m.ram.read(start, end - start) for start, end in m.ram.ranges}
    verdict = judge(patient.judge, call)
    unchanged = all(m.ram.read(start, len(data)) == data for start, data in before.items())
    told: dict[str, Any] = {"verdict": verdict.as_json(), "unchanged": unchanged}
    told["plain"] = patient.make(call)
    if told["plain"]["fate"] != "fault":
        later = patient.free_owner if kind.later.name in ("AT_FREE", "TWICE") else patient.surface
        told["later"] = later(verdict.pfn or 0)
    m = patient.restore()
    call = kind.prepare(m)
    m.debug_vm = True
    told["debug_vm"] = patient.make(call)
    try:
        m.drain_all_pages()
    except VmBugOn as bug:
        told["debug_vm"]["drained"] = f"{bug.file}:{bug.line}"
    return told


if __name__ == "__main__":
    patient = Patient(sys.argv[1])
    print(json.dumps({name: one(patient, name) for name in KINDS}))
