# SPDX-License-Identifier: GPL-2.0-only
"""What can be asked about a free: one row a question, in the order in which the kernel meets it.

Some questions the kernel asks always (``free_pages_check``), some only with CONFIG_DEBUG_VM (its assertions), and
some never: those are the frees that it carries out without a word.  Who asks, and when, depends on the kernel:
:func:`checks_of`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from kernelmm.validate.freepath import FreePath, When

__all__ = ["CHECKS", "Check", "checks_of"]

NEVER = "nobody"


@dataclass(frozen=True)
class Check:
    """A question.

    :ivar asks: what is true of a right free
    :ivar where: who asks; lines are those of assertions
    :ivar debug_only: asked with CONFIG_DEBUG_VM only
    :ivar at_drain: otherwise asked of what goes to a CPU's list only when that is drained
    :ivar cause: what usually is behind a wrong answer
    """

    name: str
    asks: str
    where: str
    cause: str
    debug_only: bool = False
    at_drain: bool = False

    @property
    def asked(self) -> str:
        """When the kernel asks, in a word."""
        if self.where == NEVER:
            return "never"
        return "with DEBUG_VM" if self.debug_only else "at drain" if self.at_drain else "always"


_ROWS = (
    Check("null", "there is something to free: address 0 is nothing", "free_pages", "An allocation that failed."),
    Check(
        "address",
        "the address is in the direct map or the kernel image, and its frame has a struct page",
        "free_pages, mm/page_alloc.c:2922",
        "An address that alloc_pages did not give: vmalloc memory (vfree), a user pointer, a struct page pointer "
        "(__free_pages takes those), or a number that was never an address.",
        debug_only=True,
    ),
    Check(
        "page_start",
        "the address is the first byte of a page",
        NEVER,
        "The caller moved the pointer that it was given; the low 12 bits are simply dropped.",
    ),
    Check(
        "struct_page",
        "the page's struct page is there",
        NEVER,
        "There is no memory at this address: the kernel reads a struct page that does not exist.",
    ),
    Check("span", "a zone spans the page", NEVER, "Beyond the end of memory, or between two nodes."),
    Check(
        "order",
        "the order is below MAX_ORDER",
        NEVER,
        "A size in bytes or in pages was passed as an order.",
    ),
    Check(
        "refcount",
        "the caller holds the page's only reference",
        "put_page_testzero, include/linux/mm.h:340",
        "A double free; or an address inside a block, not at its start: only the first page of a block is counted.",
        debug_only=True,
    ),
    Check(
        "tail",
        "the page is no tail of a compound page",
        "free_pages_prepare, mm/page_alloc.c:786",
        "An address inside a compound page: it is freed by its head.",
        debug_only=True,
    ),
    Check(
        "compound_order",
        "a compound page is freed with its own order",
        "free_pages_prepare, mm/page_alloc.c:787",
        "The order is not the one that it was allocated with (__GFP_COMP keeps it in the second page).",
        debug_only=True,
    ),
    Check("mapcount", "no page table maps any of the pages", "free_pages_check", "Still mapped by a process."),
    Check("mapping", "none of the pages belongs to a file's cache", "free_pages_check", "Not removed from its cache."),
    Check(
        "reserved",
        "none of the pages is reserved",
        "free_pages_check",
        "Firmware's, the kernel's own, or boot memory: it was never the page allocator's.",
    ),
    Check("slab", "none of the pages is a slab's", "free_pages_check", "Memory from kmalloc is given back by kfree."),
    Check("lru", "none of the pages is on an LRU list", "free_pages_check", "put_page would take it off."),
    Check(
        "flags",
        "no flag says that somebody is busy with one of the pages",
        "free_pages_check",
        "Locked, under writeback, with buffers, in the swap cache, or poisoned by the hardware.",
    ),
    Check(
        "already_free",
        "none of the pages is in a free block",
        NEVER,
        "A double free, or an order that reaches into free memory.",
    ),
    Check("pcp", "none of the pages is on a CPU's list of free pages", NEVER, "A double free of a single page."),
    Check(
        "owner",
        "the page was allocated, and not freed since, by all that is known of its history",
        NEVER,
        "A double free, or a page that nobody has allocated.",
    ),
    Check(
        "allocated_order",
        "the order is the one of the allocation",
        NEVER,
        "Too small an order loses the rest of the block, too large a one takes the neighbour's pages.",
    ),
    Check(
        "extent",
        "the other pages of the block are the same allocation's",
        NEVER,
        "Too large an order: the pages behind belong to somebody else.",
    ),
    Check(
        "zone_setup",
        "the zone that the page's flags name exists and was set up",
        "__free_one_page, mm/page_alloc.c:584",
        "page->flags was overwritten.",
        debug_only=True,
    ),
    Check(
        "alignment",
        "the page frame number is a multiple of the block's size",
        "__free_one_page, mm/page_alloc.c:602",
        "Not where a block of this order can begin: a wrong address or a wrong order.",
        debug_only=True,
    ),
    Check(
        "zone",
        "the page lies in the zone that its flags name",
        "__free_one_page, mm/page_alloc.c:603",
        "page->flags was overwritten.",
        debug_only=True,
    ),
    Check("bounds", "the block ends inside the zone", NEVER, "The block reaches into the next zone, or beyond memory."),
)

#: Those that Linux 4.0 does not ask, and after which they come.
_LATER = {
    "slab": Check(
        "type",
        "the page has no type",
        "free_pages_check",
        "A page table, a hugetlb page, one that is offline...: it is given back by those who made it so.",
    ),
    "flags": Check(
        "charged",
        "none of the pages is charged to a cgroup as a process's memory",
        "free_pages_check",
        "A process's page, or a cache's: put_page gives back what was charged.",
    ),
    "charged": Check(
        "pool",
        "none of the pages is a network driver's page pool's",
        "free_pages_check",
        "page_pool_put_page gives it back.",
    ),
}
#: What a function that checks a page asks.
_STATE = ("mapcount", "mapping", "reserved", "slab", "type", "lru", "flags", "charged", "pool")
#: Of these, what is wiped off when a page goes to a CPU's list unchecked.
_FLAGS = ("reserved", "lru", "flags")

#: Every question that Linux 4.0 asks, by name.
CHECKS: Mapping[str, Check] = MappingProxyType({check.name: check for check in _ROWS})


def checks_of(path: FreePath, *, checks_pages: bool = False, slab_is_flag: bool = False) -> Mapping[str, Check]:
    """Every question about a free on such a kernel, by name, in its order.

    :param checks_pages: whether ``check_pages_enabled`` is on, where there is such a switch
    :param slab_is_flag: whether slab pages are marked by a flag, not by a type
    """
    if path.has_lines:
        return CHECKS
    found: dict[str, Check] = {}
    for check in CHECKS.values():
        # Lines move with every stable release.
        found[check.name] = replace(check, where=check.where.partition(":")[0])
        name = check.name
        while name in _LATER and not (_LATER[name].name == "pool" and not path.knows_pools):
            name = _LATER[name].name
            found[name] = next(each for each in _LATER.values() if each.name == name)
    for name in _STATE:
        if name in found:
            wiped = path.when is When.AT_DRAIN and (name in _FLAGS or (name == "slab" and slab_is_flag))
            found[name] = replace(
                found[name],
                where=path.check if wiped or not path.at_drain else f"{path.check}, {path.at_drain}",
                debug_only=wiped or (path.when is When.BY_KEY and not checks_pages),
                at_drain=path.when is When.AT_DRAIN and not wiped,
            )
    for name in ("type",) if slab_is_flag else ("type", "slab"):
        if path.wipes_type:
            found[name] = replace(found[name], where=NEVER, debug_only=False)
    return MappingProxyType(found)
