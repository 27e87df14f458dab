# SPDX-License-Identifier: GPL-2.0-only
"""A machine that remembers who allocated what, and judges every free before it is made."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from kernelmm.machine import Machine
from kernelmm.study.trace import Event, Tracer
from kernelmm.validate.history import Allocation
from kernelmm.validate.judge import Judge
from kernelmm.validate.verdict import Status, Verdict
from physmem.inspect.check import check

__all__ = ["BadFree", "WatchedMachine"]

#: Findings of one kind that a report lists.
_SHOWN = 20


@dataclass(frozen=True)
class BadFree:
    """A free that was wrong.

    :ivar where: who called it: file, line and function
    """

    verdict: Verdict
    where: str


class WatchedMachine(Machine):
    """A :class:`Machine` that keeps account, from when it is made on.

    :ivar bad_frees: frees that were wrong
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._owners: dict[int, Allocation] = {}
        self._past: dict[int, Allocation] = {}
        self.bad_frees: list[BadFree] = []
        self._printed = len(self.console.lines)
        self.mm.tracer, self.mm.tracing = Tracer(self._note), True

    # -- accounts --------------------------------------------------------------

    def _note(self, event: Event) -> None:
        """A tracepoint was hit."""
        if not event.pfn:
            return
        order = int(event.fields.get("order", 0))
        if event.name == "mm_page_alloc":
            block = Allocation(event.pfn, order, str(event.fields["gfp_flags"]), event.comm, caller())
            self._owners |= dict.fromkeys(range(block.pfn, block.end), block)
        elif event.name == "mm_page_free":
            where = caller()
            for pfn in range(event.pfn, event.pfn + (1 << order)):
                block_of = self._owners.pop(pfn, None)
                if block_of is not None:
                    self._past[pfn] = Allocation(*(vars(block_of) | {"freed": where}).values())

    def allocation(self, pfn: int) -> Allocation | None:
        """As a :class:`~kernelmm.validate.history.History`: what was done with a page here."""
        return self._owners.get(pfn) or self._past.get(pfn)

    @contextmanager
    def trace(self, sink: Callable[[Event], None] | None = None) -> Iterator[Tracer]:
        """As :meth:`Machine.trace`; the account goes on."""
        collected: list[Event] = []
        to = collected.append if sink is None else sink

        def both(event: Event) -> None:
            self._note(event)
            to(event)

        with super().trace(both) as tracer:
            tracer.events = collected
            yield tracer

    # -- frees -----------------------------------------------------------------

    @cached_property
    def _judge(self) -> Judge:
        return Judge(self.dump, self)

    def _look(self, verdict: Verdict) -> None:
        if verdict.status >= Status.SUSPECT:
            self.bad_frees.append(BadFree(verdict, caller()))

    def free_pages(self, addr: int | None, order: int = 0) -> None:
        """``free_pages``, judged."""
        if addr:
            self._look(self._judge.free_pages(addr, order))
        super().free_pages(addr, order)

    def free_block(self, page: int, order: int = 0) -> None:
        """``__free_pages``, judged."""
        self._check_pages(page, 1)
        self._look(self._judge.free_block(page, order))
        super().free_block(page, order)

    def put_page(self, page: int) -> None:
        """``put_page``, judged."""
        self._check_pages(page, 1)
        self._look(self._judge.put_page(page))
        super().put_page(page)

    # -- the report --------------------------------------------------------------

    @property
    def leaks(self) -> list[tuple[Allocation, int]]:
        """What is still allocated: blocks, and how many pages of each."""
        pages: dict[Allocation, int] = {}
        for block in self._owners.values():
            pages[block] = pages.get(block, 0) + 1
        return list(pages.items())

    def report(self, *, leaks: bool = True, check: bool = True) -> str:
        """Everything that is wrong with what was done to this machine; empty if nothing is."""
        parts = [
            _listed("wrong free", [f"{bad.where}: {bad.verdict.explanation}" for bad in self.bad_frees]),
            _listed("bad page", [line for line in self.console.lines[self._printed :] if "Bad page state" in line]),
            _listed("leak", [_leak(*leak) for leak in self.leaks]) if leaks else "",
            _listed("finding of physmem check", self._damage()) if check else "",
        ]
        return "\n".join(part for part in parts if part)

    def _damage(self) -> list[str]:
        return [f"{f.rule}: {'' if f.pfn is None else f'pfn {f.pfn}: '}{f.detail}" for f in check(self.dump).findings]


def _leak(block: Allocation, pages: int) -> str:
    whole = 1 << block.order
    part = f"{pages} of {whole} pages" if pages < whole else f"{whole} page{'s' if whole > 1 else ''}"
    return f"{part} at pfn {block.pfn}, order {block.order}, {block.gfp}, allocated at {block.source}"


def _listed(what: str, lines: list[str]) -> str:
    if not lines:
        return ""
    more = [f"  and {len(lines) - _SHOWN} more"] if len(lines) > _SHOWN else []
    title = f"{len(lines)} {what}" if len(lines) == 1 else f"{len(lines)} {what.replace(' of ', 's of ')}"
    title += "s:" if len(lines) > 1 and " of " not in what else ":"
    return "\n".join([title, *(f"  {line}" for line in lines[:_SHOWN]), *more])


def caller() -> str:
    """The first frame outside of this project: file, line and function."""
    frame = sys._getframe(1)
    while frame.f_back is not None:
        module = frame.f_globals.get("__name__", "")
        if not module.startswith(("kernelmm.", "physmem.", "contextlib")):
            break
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_name}"
