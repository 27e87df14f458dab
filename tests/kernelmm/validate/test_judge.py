# SPDX-License-Identifier: GPL-2.0-only
"""The verdict on a free: right ones are not accused, and every answer is what the kernel then does."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from kernelmm import Machine, gfp
from kernelmm.core import opcode
from kernelmm.study.run import Run
from kernelmm.validate.checks import CHECKS
from kernelmm.validate.history import Allocation
from kernelmm.validate.judge import Judge
from kernelmm.validate.surroundings import Window
from kernelmm.validate.verdict import Fate, Status, Verdict
from physmem import abi, address
from physmem.errors import UsageError

QUIET = gfp.GFP_ATOMIC | gfp.__GFP_NOWARN


@pytest.fixture
def machine() -> Machine:
    return Machine.boot("64M")


# -- the oracle's scripts ----------------------------------------------------


def judged(judge: Judge, machine: Machine, run: Run, position: int) -> Verdict | None:
    """The verdict on the script's operation, if it frees."""
    code, ident, a, _, _ = run.script.ops[position].tolist()
    page = int(run.pages[ident]) if ident >= 0 and code != opcode.ALLOC else 0
    if not page:
        return None
    if code == opcode.FREE:
        return judge.free_block(page, a)
    if code == opcode.FREE_ADDR:
        return judge.free_pages(address.page_address(machine.mm, page), a)
    if code == opcode.FREE_COLD:
        return judge.free_block(page)
    if code in (opcode.PUT, opcode.PUT_TAIL):
        return judge.put_page(page + (a * abi.SIZEOF_PAGE if code == opcode.PUT_TAIL else 0))
    return None


def done(machine: Machine, before: int) -> tuple[Fate, list[str]]:
    """What the kernel did, and the reasons in its reports."""
    mm, lines = machine.mm, machine.console.lines
    reasons = [line.partition(": ")[2] for line in lines if line.startswith("page dumped")]
    if reasons:
        return Fate.REFUSED, reasons
    return (Fate.FREED if mm.as_u64[(mm.vm_events + 8 * mm.pgfree) >> 3] > before else Fate.KEPT), []


def follow(case: Any, limit: int) -> Iterator[Verdict]:
    """Judge each free of a script and then make it: the verdict must be what happens."""
    with Machine.attach(case.a) as machine:
        judge, mm = Judge(machine.dump), machine.mm
        run = machine.start(case.script)
        for position in range(min(limit, len(run.script))):
            verdict = judged(judge, machine, run, position)
            freed = mm.as_u64[(mm.vm_events + 8 * mm.pgfree) >> 3]
            machine.console.lines.clear()
            run.step(1)
            if verdict is not None:
                fate, reasons = done(machine, freed)
                assert verdict.plain.fate is fate, verdict
                assert [reason for _, reason in verdict.plain.bad] == reasons
                yield verdict


@pytest.mark.parametrize(
    ("name", "limit", "frees"),
    [
        ("n128_s1", 2000, 790),
        ("u128_s1", 1000, 300),
        ("n128_s3", 2400, 1000),
        ("n128_s5", 1500, 400),
        ("n128_s7", 1500, 600),
        ("n128_s14_scanned", 800, 200),
        ("n128_s15_compound", 1500, 500),
        ("n256x2_s6n", 2500, 900),
        ("n128_s11_isolate", 500, 100),
    ],
)
def test_right_frees_are_not_accused(oracle: Callable[[str], Any], name: str, limit: int, frees: int) -> None:
    verdicts = list(follow(oracle(name), limit))
    assert len(verdicts) >= frees
    assert [verdict.explanation for verdict in verdicts if not verdict.right] == []


def test_of_bad_frees_the_bad_ones_are_accused(oracle: Callable[[str], Any]) -> None:
    verdicts = list(follow(oracle("n128_s12_bad"), 10_000))
    fates = Counter(verdict.plain.fate for verdict in verdicts)
    assert fates[Fate.REFUSED] >= 20
    assert all(verdict.status is Status.WRONG for verdict in verdicts if verdict.plain.fate is Fate.REFUSED)
    # Next to pages that were lost, what memory says of a block's size is not certain.
    others = {check for verdict in verdicts if verdict.plain.fate is not Fate.REFUSED for check in verdict.checks}
    assert others <= {"allocated_order"}


# -- single verdicts ---------------------------------------------------------


def test_a_right_free(machine: Machine) -> None:
    addr = machine.get_free_pages(QUIET, 2)
    assert addr is not None
    verdict = machine.judge_free(addr, 2)
    assert verdict.right
    assert verdict.status is Status.OK
    assert verdict.plain == verdict.debug_vm
    said = f"Right: free_pages({addr:#x}, 2). The kernel frees the block of 4 pages, to the free lists."
    assert verdict.explanation == said
    assert [answer.check for answer in verdict.answers] == list(CHECKS)


def test_nothing_is_freed_by_null(machine: Machine) -> None:
    verdict = machine.judge_free(0, 3)
    assert verdict.right
    assert verdict.plain.fate is Fate.NOTHING
    assert verdict["null"].status is Status.NOTE
    with pytest.raises(KeyError):
        verdict["no such check"]


def test_a_reference_that_somebody_else_holds_is_no_error(machine: Machine) -> None:
    page = machine.alloc_pages(QUIET)
    assert page is not None
    machine.get_page(page)
    verdict = machine.judge_free(machine.page_address(page))
    assert verdict.right
    assert verdict.plain.fate is Fate.KEPT
    assert "1 remain" in verdict.plain.effect


def test_an_anonymous_page_may_keep_its_mapping(machine: Machine) -> None:
    page = machine.alloc_pages(QUIET)
    assert page is not None
    machine.ram.write(address.page_off(machine.mm, page) + abi.PAGE_MAPPING, (0xFFFF880000001001).to_bytes(8, "little"))
    verdict = machine.judge_free(machine.page_address(page))
    assert verdict.right
    assert verdict["mapping"].status is Status.NOTE
    machine.free_block(page)
    assert machine.dmesg().count("BUG") == 0


def test_put_page_of_a_tail_is_judged_by_its_head(machine: Machine) -> None:
    page = machine.alloc_pages(QUIET | gfp.__GFP_COMP, 3)
    assert page is not None
    verdict = Judge(machine.dump).put_page(page + 5 * abi.SIZEOF_PAGE)
    assert verdict.right
    assert (verdict.pfn, verdict.order) == (machine.page_to_pfn(page), 3)


def test_arguments_that_no_free_can_have(machine: Machine) -> None:
    judge = Judge(machine.dump)
    for call in (
        lambda: judge.free_pages(-1),
        lambda: judge.free_pages(1 << 64),
        lambda: judge.free_pages(0xFFFF880000000000, -1),
        lambda: judge.free_pages(0xFFFF880000000000, 1 << 32),
        lambda: judge.free_block(0xFFFF880000000000),
        lambda: judge.free_block(machine.mm.mem_map + 8),
        lambda: judge.put_page(0),
    ):
        with pytest.raises(UsageError):
            call()


def test_an_order_beyond_reason_takes_no_time(machine: Machine) -> None:
    addr = machine.get_free_pages(QUIET)
    assert addr is not None
    verdict = machine.judge_free(addr, (1 << 32) - 1)
    assert "order" in verdict.checks
    assert verdict.plain.fate in (Fate.REFUSED, Fate.FAULT)


def test_a_list_without_a_head_is_walked_once(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Damaged memory: 1024 pages that nobody has, on a ring; each asks which list it is on."""
    first = machine.alloc_pages(gfp.GFP_KERNEL, 10)
    assert first is not None
    ring = [first + abi.SIZEOF_PAGE * i + abi.PAGE_LRU for i in range(1024)]
    ram = machine.ram
    for i, link in enumerate(ring):
        at = address.page_off(machine.mm, link - abi.PAGE_LRU)
        ram.set_u32(at + abi.PAGE_COUNT, 0)
        ram.set_u64(at + abi.PAGE_LRU, ring[(i + 1) % 1024])
        ram.set_u64(at + abi.PAGE_LRU + 8, ring[i - 1])
    steps = 0
    links = Window._links

    def counted(self: Window, link: int) -> tuple[int, int] | None:
        nonlocal steps
        steps += 1
        return links(self, link)

    monkeypatch.setattr(Window, "_links", counted)
    verdict = machine.judge_free(machine.page_address(first), 10)
    assert verdict["refcount"].status is Status.WRONG
    assert verdict["pcp"].status is Status.OK
    assert 1024 < steps < 10_000


def test_the_last_page_and_what_lies_behind(machine: Machine) -> None:
    last = machine.mm.page_offset + (machine.dump.max_pfn - 1 << abi.PAGE_SHIFT)
    verdict = machine.judge_free(last, 1)
    assert "bounds" in verdict.checks


class Ledger:
    """A history of one allocation."""

    def __init__(self, *known: Allocation) -> None:
        self.known = known

    def allocation(self, pfn: int) -> Allocation | None:
        return next((each for each in self.known if each.pfn <= pfn < each.end), None)


def test_history_decides_where_memory_cannot(machine: Machine) -> None:
    page = machine.alloc_pages(QUIET)
    assert page is not None
    pfn, addr = machine.page_to_pfn(page), machine.page_address(page)
    assert machine.judge_free(addr).right

    def verdict(history: Ledger, order: int = 0) -> Verdict:
        return machine.judge_free(addr, order, history)

    assert verdict(Ledger(Allocation(pfn, 0, "GFP_KERNEL", "init-1", "line 7"))).right
    freed = verdict(Ledger(Allocation(pfn, 0, "GFP_KERNEL", "init-1", "line 7", "line 9")))
    assert freed.checks == ("owner",)
    assert "line 9" in freed.explanation
    assert verdict(Ledger(Allocation(pfn, 1, "GFP_KERNEL", "init-1", "line 7"))).checks == ("allocated_order",)
    assert verdict(Ledger(Allocation(pfn - 1, 1, "GFP_KERNEL", "", "line 7")))["allocated_order"].status is Status.NOTE
    unknown = verdict(Ledger())
    assert unknown.right
    assert unknown["owner"].status is Status.NOTE


def test_a_page_of_a_split_block_is_right_to_be_freed_alone(machine: Machine) -> None:
    page = machine.alloc_pages(QUIET, 2)
    assert page is not None
    machine.split_page(page, 2)
    history = Ledger(Allocation(machine.page_to_pfn(page), 2, "GFP_KERNEL", "", "line 1"))
    for i in range(4):
        verdict = machine.judge_free(machine.page_address(page + i * abi.SIZEOF_PAGE), 0, history)
        assert verdict.right, verdict.explanation
