# SPDX-License-Identifier: GPL-2.0-only
"""Questions about a free: which blocks grow together, and which functions get them there."""

from __future__ import annotations

from random import Random

from kernelmm import gfp
from kernelmm.core import mmzone
from kernelmm.core import page as page_fields
from kernelmm.machine import Machine
from kernelmm.study.explain import explain
from kernelmm.study.explain_text import call_lines
from kernelmm.study.quiz_model import Lab, Question
from physmem import abi, address
from physmem.errors import UsageError

__all__ = ["make_buddy", "make_path"]

_ASKS_BUDDY = [
    "Which page frame is the block's buddy, and is it free with it?",
    "Which blocks does it grow together with, one after the other?",
    "Which free block is there in the end (first PFN and order)?",
]
_ASKS_PATH = [
    "Which functions run, in order?",
    "Where is the page afterwards: on a per-CPU list, on a free list, or nowhere?",
    "What is its _count afterwards, and how many pages does the CPU have on its lists of this zone?",
]
_COMP = vars(gfp)["__GFP_COMP"]
#: What asks for a page of a zone, by its index; the highest is what everybody gets.
_ZONE_MASKS = {gfp.ZONE_DMA: gfp.GFP_DMA, gfp.ZONE_DMA32: gfp.GFP_DMA32}


def make_buddy(lab: Lab, random: Random) -> Question:
    """A block is taken and given back; which of its neighbours are free is read from memory in between."""
    machine = lab.machine
    page, order = lab.take(random, 1, 2, 3, 4)
    pfn = machine.page_to_pfn(page)
    largest = 1 << (abi.MAX_ORDER - 1)
    start = pfn & -largest
    before = free_blocks(machine, start, start + largest)
    machine.free_block(page, order)
    after = free_blocks(machine, start, start + largest)
    final = next((head, size) for head, size in sorted(after.items()) if head <= pfn < head + (1 << size))
    # What was there and is there no longer, smallest first: these have grown together with it.
    merged = sorted((set(before.items()) - set(after.items())), key=lambda block: block[1])
    buddy = pfn ^ 1 << order
    near = {head: size for head, size in before.items() if abs(head - pfn) <= 64 or size > 4}
    given = [
        ("freed", f"pfn {pfn} ({pfn:#x}), order {order}: index {pfn - start} of the {largest} pages from pfn {start}"),
        ("free blocks", ", ".join(f"pfn {head} of order {size}" for head, size in sorted(near.items())) or "none near"),
        ("largest", f"order {abi.MAX_ORDER - 1}; every block is in the same zone, none is isolated"),
    ]
    if len(near) != len(before):
        more = len(before) - len(near)
        given.append(("", f"(and {more} small one{'s' if more > 1 else ''} further away)"))
    is_free = before.get(buddy) == order
    answers = [
        f"pfn {buddy} (pfn xor 2^{order}): {'free, of the same order' if is_free else 'not free with this order'}",
        ", ".join(f"pfn {head} of order {size}" for head, size in merged) or "with none",
        f"pfn {final[0]}, order {final[1]}",
    ]
    worked = [f"index {pfn - start} xor {1 << order} = {(pfn - start) ^ 1 << order}: pfn {buddy}"]
    head, size = pfn, order
    for other, other_size in merged:
        head, size = min(head, other), other_size + 1
        worked.append(f"with pfn {other} of order {other_size}: pfn {head} of order {size}")
    facts = {"pfn": pfn, "order": order, "free": [[h, s] for h, s in sorted(before.items())]}
    solution = {
        "buddy": buddy,
        "buddy_is_free": is_free,
        "merged": [list(each) for each in merged],
        "final": list(final),
    }
    text = f"__free_pages(pfn {pfn}, {order}): the last reference of a block of {1 << order} pages is dropped."
    return Question(text, given, list(_ASKS_BUDDY), answers, worked, facts, solution)


def free_blocks(machine: Machine, start: int, end: int) -> dict[int, int]:
    """The free blocks that begin in [start, end): their order by first PFN."""
    mm = machine.mm
    found = {}
    for pfn in range(start, min(end, machine.dump.max_pfn)):
        at = address.page_off(mm, address.pfn_to_page(mm, pfn))
        if page_fields.buddy(mm, at):
            found[pfn] = page_fields.order(mm, at)
    return found


def make_path(lab: Lab, random: Random) -> Question:
    """A page is freed in one of several states, and watched."""
    machine, mm = lab.machine, lab.machine.mm
    state = random.choice(("plain", "plain", "block", "block", "shared", "compound", "full"))
    if state == "compound":
        order = random.randrange(1, 4)
        made = machine.alloc_pages(gfp.GFP_KERNEL | _COMP, order)
        if made is None:
            raise UsageError("the machine has run out of memory: ask for fewer questions")
        page = made
    else:
        page, order = lab.take(random, *{"block": (1, 2, 3, 4), "shared": (0, 1, 2)}.get(state, (0,)))
    if state == "shared":
        machine.get_page(page)
    pfn = machine.page_to_pfn(page)
    zone = mmzone.page_zone(mm, address.page_off(mm, page))
    pageset = mmzone.this_cpu_pageset(mm, mmzone.zone_off(mm, zone))
    if state == "full":
        fill_lists(machine, zone, pageset)
    count, high, batch = (mm.as_s32[(pageset + at) >> 2] for at in (abi.PCP_COUNT, abi.PCP_HIGH, abi.PCP_BATCH))
    references = page_fields.count(mm, address.page_off(mm, page))
    view = machine.page(page)
    call = "put_page" if state == "compound" else "__free_pages"
    given = [
        ("page", f"pfn {pfn}, allocated with order {order}{', compound' if state == 'compound' else ''}"),
        ("_count", str(references)),
        ("pageblock", f"of migratetype {view.migratetype}"),
        ("per-CPU lists", f"count {count}, high {high}, batch {batch}"),
    ]
    operation = f"put pfn:{pfn}" if state == "compound" else f"free pfn:{pfn} {order}"
    done = explain(machine, operation).operations[0]
    functions = [each.kernel for top in done.calls for _, each in top.walk() if not each.detail]
    left = page_fields.count(mm, address.page_off(mm, page))
    now = mm.as_s32[(pageset + abi.PCP_COUNT) >> 2]
    largest = 1 << (abi.MAX_ORDER - 1)
    blocks = free_blocks(machine, pfn & -largest, (pfn & -largest) + largest)
    if left > 0:
        place = "nowhere: it is still in use"
    elif any(head <= pfn < head + (1 << size) for head, size in blocks.items()):
        place = "on a free list"
    else:
        place = "on a per-CPU list"
    facts = {"order": order, "count": references, "pcp": [count, high, batch], "compound": state == "compound"}
    solution = {"functions": functions, "place": place, "count": left, "pcp_count": now}
    answers = [", ".join(runs(functions)), place, f"_count {left}; {now} pages on the CPU's lists"]
    if state == "shared":
        machine.free_block(page, order)
    text = f"{call}({f'pfn {pfn}' if call == 'put_page' else f'pfn {pfn}, {order}'}) is called."
    worked = ["each function, with what made it go on:", *call_lines(done.calls)]
    return Question(text, given, list(_ASKS_PATH), answers, worked, facts, solution)


def fill_lists(machine: Machine, zone: int, pageset: int) -> None:
    """Free single pages of a zone until one more makes the CPU's lists give a batch back."""
    mm = machine.mm
    mask = _ZONE_MASKS.get(mmzone.zone_idx(mm, zone, mmzone.zone_off(mm, zone)), 0)
    while mm.as_s32[(pageset + abi.PCP_COUNT) >> 2] < mm.as_s32[(pageset + abi.PCP_HIGH) >> 2] - 1:
        block = machine.alloc_pages(mask, 1)
        if block is None:
            return
        if mmzone.page_zone(mm, address.page_off(mm, block)) != zone:
            machine.free_block(block, 1)
            return
        machine.split_page(block, 1)
        machine.free_block(block + abi.SIZEOF_PAGE)
        if mm.as_s32[(pageset + abi.PCP_COUNT) >> 2] < mm.as_s32[(pageset + abi.PCP_HIGH) >> 2] - 1:
            machine.free_block(block)


def runs(names: list[str]) -> list[str]:
    """Names in order; what comes several times in a row, alone or in pairs, is told once."""
    told = []
    at = 0
    while at < len(names):
        for width in (1, 2):
            part = names[at : at + width]
            times = 1
            while names[at + times * width : at + (times + 1) * width] == part:
                times += 1
            if times > 1:
                break
        else:
            part, width = names[at : at + 1], 1
        told.append(part[0] if times == 1 else f"{part[0] if width == 1 else '(' + ', '.join(part) + ')'} x {times}")
        at += times * width
    return told
