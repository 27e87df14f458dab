# SPDX-License-Identifier: GPL-2.0-only
"""A free as text.

=============================  ====================================================
``free ADDR [ORDER]``          free_pages, of a direct-map or kernel-image address
``__free_pages PAGE [ORDER]``  of a ``struct page *``
``put_page PAGE``              drop a reference
=============================  ====================================================

ADDR and PAGE may also be ``pfn:N`` or ``phys:ADDRESS``; ORDER is 0 if it is not given.
"""

from __future__ import annotations

from kernelmm.validate.judge import Judge
from kernelmm.validate.verdict import Verdict
from physmem.errors import UsageError
from physmem.inspect.what import Region, What, parse_what

__all__ = ["judge"]

_FREE = frozenset({"free", "free_pages", "free_page"})
_FREE_BLOCK = frozenset({"__free_pages", "__free_page"})
_FORMS = "expected 'free ADDR ORDER', '__free_pages PAGE ORDER' or 'put_page PAGE'"


def judge(of: Judge, text: str) -> Verdict:
    """Judge one free.

    :raises UsageError: it is none of the forms above, or an argument cannot be one
    """
    words = text.split()
    name = words[0] if words else ""
    takes_order = name in _FREE or name in _FREE_BLOCK
    if not (takes_order or name == "put_page") or not 2 <= len(words) <= 2 + takes_order:
        raise UsageError(f"{text!r}: {_FORMS}")
    what = parse_what(words[1])
    order = _order(text, words[2]) if len(words) > 2 else 0
    if name in _FREE:
        return of.free_pages(_address(of, what), order, text)
    page = _page(of, what)
    return of.put_page(page, text) if name == "put_page" else of.free_block(page, order, text)


def _order(text: str, word: str) -> int:
    try:
        return int(word)
    except ValueError:
        raise UsageError(f"{text!r}: order {word!r} is not a number") from None


def _pfn(of: Judge, what: What) -> int:
    return what.value if what.kind is Region.PFN else what.value >> of.kernel.shift


def _address(of: Judge, what: What) -> int:
    if what.kind is Region.PAGE_TABLES:
        return what.value
    phys = what.value << of.kernel.shift if what.kind is Region.PFN else what.value
    if phys >= of.dump.regions.direct_map_size:
        raise UsageError(f"physical {phys:#x}: beyond what the direct map can reach")
    return of.dump.page_offset + phys


def _page(of: Judge, what: What) -> int:
    if what.kind is Region.PAGE_TABLES:
        return what.value
    pfn = _pfn(of, what)
    page = of.dump.page_of(pfn)
    if not page:
        raise UsageError(f"pfn {pfn}: it has no struct page: its section has no page array")
    return page
