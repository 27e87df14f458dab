# SPDX-License-Identifier: GPL-2.0-only
"""Operations to be explained, as text.

============================  ====================================================================
``alloc GFP ORDER [NID]``      alloc_pages_node; GFP is names (``GFP_KERNEL|__GFP_ZERO``) or hexadecimal
``free ADDR ORDER``            free_pages by direct-map address; by ``struct page`` or ``pfn:N``, __free_pages
``get WHAT`` ``put WHAT``      get_page, put_page
``drain`` ``drain_all``        drain_local_pages, drain_all_pages
``reclaim [GFP [ORDER]]``      try_to_free_pages: direct reclaim for such a request
``kswapd [NID]``               let the node's kswapd run until it sleeps, if something has woken it
``compact [ORDER]``            compact every node until there is such a block (by default as far as it goes)
============================  ====================================================================

An ADDR or WHAT is an address, ``pfn:N``, ``phys:N``, or ``$``: what the last allocation gave (``$2``: what the
second operation gave).  Several operations are separated by ``;`` or by lines.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kernelmm import gfp
from kernelmm.core import mmzone
from kernelmm.pressure import compaction, direct, kswapd, slowpath
from physmem import abi, address
from physmem.errors import UsageError
from physmem.inspect.what import Region, locate, parse_what

if TYPE_CHECKING:
    from kernelmm.machine import Machine

__all__ = ["Bound", "Performed", "Request", "parse_requests"]

_FORMS = {
    "alloc": ("GFP ORDER [NID]", 2, 3),
    "free": ("ADDR ORDER", 1, 2),
    "get": ("WHAT", 1, 1),
    "put": ("WHAT", 1, 1),
    "drain": ("", 0, 0),
    "drain_all": ("", 0, 0),
    "reclaim": ("[GFP [ORDER]]", 0, 2),
    "kswapd": ("[NID]", 0, 1),
    "compact": ("[ORDER]", 0, 1),
}
#: More than this in one go is not an explanation any more.
_MAX_OPERATIONS = 64


@dataclass(frozen=True)
class Performed:
    """What an operation before gave: ``struct page *`` or None, and of which order."""

    page: int | None
    order: int


@dataclass(frozen=True)
class Bound:
    """An operation on a certain machine, ready to be performed.

    :ivar call: as a call in C
    :ivar perform: does it
    :ivar returns: whether it has a result
    :ivar show: the result for people
    """

    call: str
    perform: Callable[[], int | None]
    returns: bool = False
    order: int = 0
    show: Callable[[int], str] = str


@dataclass(frozen=True)
class Request:
    """An operation, parsed.

    :ivar text: as it was given
    """

    text: str
    verb: str
    arguments: tuple[str, ...]

    def bind(self, machine: Machine, done: Sequence[Performed]) -> Bound:
        """Make it ready for a machine.

        :param done: what the operations before gave
        :raises UsageError: an argument is not one of this machine
        :raises AddressError: an address leads to no page
        """
        try:
            bound: Bound = getattr(self, f"_{self.verb}")(machine, done)
        except UsageError as error:
            raise UsageError(f"{self.text!r}: {error}") from None
        return bound

    def _alloc(self, machine: Machine, done: Sequence[Performed]) -> Bound:
        mask = parse_gfp(self.arguments[0])
        order = _number(self.arguments[1], "order", abi.MAX_ORDER)
        nid = _number(self.arguments[2], "node", 63) if len(self.arguments) > 2 else None
        if nid is not None and nid not in machine.dump.pgdats:
            raise UsageError(f"the machine has no node {nid}")
        names = gfp.gfp_names(mask)
        where = "" if nid is None else f"{nid}, "
        call = f"alloc_pages{'' if nid is None else '_node'}({where}{names}, {order})"

        def show(page: int) -> str:
            pfn = address.page_to_pfn(machine.mm, page)
            return f"pfn {pfn}: page {page:#x}, memory at {address.page_address(machine.mm, page):#x}"

        return Bound(call, lambda: machine.alloc_pages(mask, order, nid), True, order, show)

    def _free(self, machine: Machine, done: Sequence[Performed]) -> Bound:
        page, addr, order = self._page(machine, done)
        if len(self.arguments) > 1:
            order = _number(self.arguments[1], "order", abi.MAX_ORDER - 1)
        elif not self.arguments[0].startswith("$"):
            raise UsageError("which order?")
        if addr is not None:
            return Bound(f"free_pages({addr:#x}, {order})", lambda: machine.free_pages(addr, order), order=order)
        return Bound(f"__free_pages({page:#x}, {order})", lambda: machine.free_block(page, order), order=order)

    def _get(self, machine: Machine, done: Sequence[Performed]) -> Bound:
        page, _, order = self._page(machine, done)
        return Bound(f"get_page({page:#x})", lambda: machine.get_page(page), order=order)

    def _put(self, machine: Machine, done: Sequence[Performed]) -> Bound:
        page, _, order = self._page(machine, done)
        return Bound(f"put_page({page:#x})", lambda: machine.put_page(page), order=order)

    def _drain(self, machine: Machine, done: Sequence[Performed]) -> Bound:
        return Bound("drain_local_pages(NULL)", machine.drain_local_pages)

    def _drain_all(self, machine: Machine, done: Sequence[Performed]) -> Bound:
        return Bound("drain_all_pages(NULL)", machine.drain_all_pages)

    def _reclaim(self, machine: Machine, done: Sequence[Performed]) -> Bound:
        mask = parse_gfp(self.arguments[0]) if self.arguments else gfp.GFP_KERNEL
        order = _number(self.arguments[1], "order", abi.MAX_ORDER - 1) if len(self.arguments) > 1 else 0
        mm = machine.mm

        def perform() -> int:
            zonelist = mmzone.node_zonelist(mm, mm.numa_node_id(), False)
            with slowpath.pf_memalloc(mm):
                return direct.try_to_free_pages(mm, zonelist, order, mask, 0)

        call = f"try_to_free_pages(zonelist, {order}, {gfp.gfp_names(mask)}, NULL)"
        return Bound(call, perform, True, show=lambda count: f"{count} pages reclaimed")

    def _kswapd(self, machine: Machine, done: Sequence[Performed]) -> Bound:
        nid = _number(self.arguments[0], "node", 63) if self.arguments else 0
        if nid not in machine.dump.pgdats:
            raise UsageError(f"the machine has no node {nid}")

        def perform() -> None:
            mm = machine.mm
            if kswapd.kswapd_is_woken(mm, mmzone.node_data(mm, nid)):
                kswapd.run_kswapd(mm, nid)

        return Bound(f"kswapd of node {nid}, if it has been woken", perform)

    def _compact(self, machine: Machine, done: Sequence[Performed]) -> Bound:
        order = _number(self.arguments[0], "order", abi.MAX_ORDER - 1) if self.arguments else -1
        mm = machine.mm

        def perform() -> None:
            for pgdat in machine.dump.pgdats.values():
                compaction.compact_pgdat(mm, pgdat, order)

        return Bound(f"compact_pgdat(every node, {order})", perform)

    def _page(self, machine: Machine, done: Sequence[Performed]) -> tuple[int, int | None, int]:
        """The page that the first argument means, its direct-map address if it was named by that, and its order."""
        what = self.arguments[0]
        if what.startswith("$"):
            made = _earlier(what, done)
            if not made.page:
                raise UsageError(f"{what} is NULL")
            return made.page, address.page_address(machine.mm, made.page), made.order
        place = locate(machine.dump, parse_what(what))
        page = machine.pfn_to_page(place.pfn)
        memory = place.region in (Region.DIRECT_MAP, Region.KERNEL_IMAGE)
        return page, place.value if memory else None, 0


def parse_requests(operations: Iterable[str] | str) -> list[Request]:
    """Parse operations.

    :raises UsageError: there is none, or too many, or one is malformed; quotes it
    """
    texts = [operations] if isinstance(operations, str) else list(operations)
    found = []
    for text in (part.strip() for each in texts for part in re.split(r"[;\n]", each)):
        if not text or text.startswith("#"):
            continue
        verb, *arguments = text.split()
        if verb not in _FORMS:
            raise UsageError(f"{text!r}: no operation {verb!r}; there are {', '.join(_FORMS)}")
        form, least, most = _FORMS[verb]
        if not least <= len(arguments) <= most:
            raise UsageError(f"{text!r}: expected '{f'{verb} {form}'.rstrip()}'")
        found.append(Request(text, verb, tuple(arguments)))
    if not found:
        raise UsageError("no operation to explain: try 'alloc GFP_KERNEL 3'")
    if len(found) > _MAX_OPERATIONS:
        raise UsageError(f"{len(found)} operations: at most {_MAX_OPERATIONS} are explained in one go")
    return found


def parse_gfp(text: str) -> int:
    """A gfp mask: names joined by ``|``, with or without underscores, or hexadecimal; raises UsageError."""
    mask = 0
    for word in text.split("|"):
        value = getattr(gfp, word, None) if re.fullmatch(r"(__)?GFP_[A-Z0-9_]+", word) else None
        if value is None and re.fullmatch(r"GFP_[A-Z0-9_]+", word):
            value = getattr(gfp, f"__{word}", None)
        if value is None and re.fullmatch(r"(0[xX])?[0-9a-fA-F]{1,8}", word, re.ASCII):
            value = int(word, 16)
        if value is None:
            raise UsageError(f"{word!r} is no gfp mask: expected names as in GFP_KERNEL|__GFP_ZERO, or hexadecimal")
        mask |= value
    return mask


def _number(text: str, what: str, most: int) -> int:
    if not re.fullmatch(r"[0-9]{1,9}", text, re.ASCII) or int(text) > most:
        raise UsageError(f"{what} {text!r}: expected a number from 0 to {most}")
    return int(text)


def _earlier(text: str, done: Sequence[Performed]) -> Performed:
    """What ``$`` or ``$N`` stands for."""
    if text == "$":
        for made in reversed(done):
            if made.page:
                return made
        raise UsageError("$: nothing was allocated before")
    number = text[1:]
    if not re.fullmatch(r"[0-9]{1,4}", number, re.ASCII) or not 1 <= int(number) <= len(done):
        raise UsageError(f"{text}: there {'are' if len(done) != 1 else 'is'} {len(done)} operations before")
    return done[int(number) - 1]
