# SPDX-License-Identifier: GPL-2.0-only
"""The allocator's lists of free pages, and where they contradict themselves.

Two kinds of list hold free pages: the free lists of a zone, one for each order and migratetype,
and the per-cpu lists of single pages.  A list is walked from both ends, so that one broken link
hides none of it and is blamed on the page that has it.  No page is visited twice, so that every
walk ends.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from physmem.dump import Dump
from physmem.errors import PhysmemError
from physmem.inspect.links import FIRST_HEAD, NOWHERE, UNREAD, Links
from physmem.inspect.pageformat import PageFormat
from physmem.inspect.zones import ListHead, Pageset, Zone, pagesets

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
else:
    from physmem.later import np

__all__ = ["Break", "FreeList", "FreeLists", "free_lists", "pcp_lists", "read_lists"]


@dataclass(frozen=True)
class FreeList:
    """A list of free pages.

    :ivar order: of the blocks on it
    :ivar migratetype: of them; None for a per-cpu list of several
    :ivar cpu: whose list it is; None for a free list of the zone
    :ivar name: what to call it in messages
    """

    zone: Zone
    head: ListHead
    order: int
    migratetype: int | None
    cpu: int | None
    name: str


def free_lists(zone: Zone, migratetypes: Sequence[str]) -> list[FreeList]:
    """The free lists of a zone; the names of migratetypes are for messages."""
    return [
        FreeList(zone, head, order, i, None, f"{zone} order {order} {migratetypes[i]}")
        for order, heads in enumerate(zone.free_lists)
        for i, head in enumerate(heads)
    ]


def pcp_lists(zone: Zone, pageset: Pageset) -> list[FreeList]:
    """The lists of a pageset."""
    # Before 5.14 they were of single pages alone, which goes without saying.
    several = len(pageset.lists) > len({kind.migratetype for kind in pageset.kinds})
    return [
        FreeList(
            zone,
            head,
            kind.order,
            kind.migratetype,
            pageset.cpu,
            f"{zone} CPU {pageset.cpu}{f' order {kind.order}' if several else ''} {kind.name}",
        )
        for head, kind in zip(pageset.lists, pageset.kinds, strict=True)
    ]


@dataclass(frozen=True)
class Break:
    """A place where a list contradicts itself.

    :ivar rule: ``list_link``: a link leads to nothing that can be an entry; ``list_cycle``: to an earlier entry;
        ``two_lists``: to an entry of another list; ``list_broken``: to a page that does not lead back;
        ``absent``: to a page that is not in the image, which is nobody's fault
    :ivar pfn: the page whose link it is, or the one that is on two lists; None if it is the list head's link
    """

    rule: str
    list: FreeList
    pfn: int | None
    detail: str


class FreeLists:
    """Some lists, walked.

    :ivar links: the pages on them and others that look free
    :ivar members: for each list, the positions of its pages in ``links``, in the list's order
    :ivar owner: for each page of ``links``, the number of the list it is on; -1 for none
    :ivar breaks: where lists contradict themselves: there, some of a list may be missing
    """

    def __init__(self, dump: Dump, lists: Sequence[FreeList]) -> None:
        self.lists = lists
        self.links = Links(dump, [each.head.address for each in lists])
        self.owner = np.full(len(self.links.pfns), -1, np.intc)
        ends = np.array([[each.head.next, each.head.prev] for each in lists], np.uint64).reshape(-1, 2)
        firsts, lasts = self.links.codes(ends[:, 0]).tolist(), self.links.codes(ends[:, 1]).tolist()
        self._next, self._prev = self.links.next.data, self.links.prev.data
        self.members: list[npt.NDArray[np.intc]] = []
        loose: list[tuple[int, int, str, int]] = []
        for number, (first, last) in enumerate(zip(firsts, lasts, strict=True)):
            loose += ((number, *end) for end in self._walk(number, first, last))
        # What a loose end means depends on who owns the page it leads to, which is known now.
        self.breaks = [self._judge(*end) for end in loose]

    def pfns(self, number: int) -> npt.NDArray[np.int64]:
        """The PFNs on list ``number``, in order."""
        return self.links.pfns[self.members[number]]

    def _walk(self, number: int, first: int, last: int) -> Iterator[tuple[int, str, int]]:
        """Find the members of a list; yields links that are wrong: page or head that has it, which, where it leads."""
        head = FIRST_HEAD - number
        there, behind, ahead = self._follow(number, first, head, self._next, self._prev)
        if ahead == head and last == behind:
            self.members.append(np.frombuffer(there, np.intc))
            return
        back, before, beyond = self._follow(number, last, head, self._prev, self._next)
        self.members.append(np.concatenate([np.frombuffer(there, np.intc), np.frombuffer(back, np.intc)[::-1]]))
        # If one of the two ends leads to the other, the other's link alone is wrong.
        if ahead != before:
            yield behind, self.links.format.next, ahead
        if beyond != behind:
            yield before, self.links.format.prev, beyond

    def _follow(
        self, number: int, code: int, head: int, forward: memoryview, backward: memoryview
    ) -> tuple[array[int], int, int]:
        """Entries from ``code`` on while each leads back; the last of them (or the head), and where that leads."""
        owner = self.owner.data
        found = array("i")
        last = head
        while code >= 0 and backward[code] == last and owner[code] < 0:
            owner[code] = number
            found.append(code)
            last = code
            code = forward[code]
        return found, last, code

    def _judge(self, number: int, at: int, link: str, target: int) -> Break:
        this = self.lists[number]
        pfn = int(self.links.pfns[at]) if at >= 0 else None
        what = f"{this.name}: {'list head' if pfn is None else 'page'}'s {link.rpartition('.')[2]}"
        if target == NOWHERE:
            head = this.head.next if link == self.links.format.next else this.head.prev
            raw = head if at < 0 else int(self.links.pages[at][link])
            return Break("list_link", this, pfn, f"{what} is {raw:#x}, which is no entry of a list")
        if target == UNREAD:
            return Break("absent", this, pfn, f"{what} leads to a page that is not in the image")
        if target <= FIRST_HEAD:
            other = self.lists[FIRST_HEAD - target]
            return Break("list_broken", this, pfn, f"{what} leads to the list head of {other.name}")
        to = int(self.links.pfns[target])
        owner = int(self.owner[target])
        if owner not in (-1, number):
            return Break("two_lists", this, to, f"on {self.lists[owner].name} and linked from {what}")
        if owner == number and link == self.links.format.next:
            return Break("list_cycle", this, pfn, f"{what} leads back to pfn {to}")
        return Break("list_broken", this, pfn, f"{what} leads to pfn {to}, which does not lead back")


def read_lists(dump: Dump, zones: Sequence[Zone]) -> FreeLists:
    """All free lists of some zones, and of their per-cpu lists those that the image tells of."""
    names = PageFormat(dump.layout).migratetypes
    lists = [each for zone in zones for each in free_lists(zone, names)]
    for zone in zones:
        with suppress(PhysmemError):
            lists += [each for pageset in pagesets(dump, zone) for each in pcp_lists(zone, pageset)]
    # While a kernel boots, all zones share one pageset.
    return FreeLists(dump, list({each.head.address: each for each in lists}.values()))
