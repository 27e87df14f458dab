# SPDX-License-Identifier: GPL-2.0-only
"""How kernels free: what differs from one release to the next, as data.

======  ==============================================================================================
since   on the way from ``__free_pages`` to the free lists
======  ==============================================================================================
4.0     every page is checked; single pages go to their CPU's list
4.6     the count is ``_refcount``
4.7     without CONFIG_DEBUG_VM, what goes to a CPU's list is checked when that is drained, its flags never
5.10    if the first page has other users, the rest of the block is given back all the same
5.14    blocks of small orders, and huge pages, go to a CPU's list too
5.18    ``put_page`` sees to pages that are mlocked
6.1     ``check_free_page`` is called ``free_page_is_bad``
6.3     nothing is checked, unless ``check_pages_enabled`` is on (by init_on_alloc, page_poison...) or DEBUG_VM
6.7     a compound page's order is compared for order 0 too
6.8     what is a network driver's page pool's is noticed
6.12    an mlocked page is let off
6.17    the first page's type is wiped off before anybody looks at it; no driver's mapping is let off any more
======  ==============================================================================================

Where this is from, since 6.7: the commits as Linux has them, and the pull requests by which they came.

======  ==============================================================================================
6.7     76f26535d144 "mm: page_alloc: check the order of compound page even when the order is zero", in
        mm-stable-2023-11-01-14-33
6.8     dba1b8a7ab68 "mm/page_pool: catch page_pool memory leaks" (v6.8-rc1~131^2~268)
6.12    66edc3a5894c "mm: page_alloc: move mlocked flag clearance into free_pages_prepare()", in
        mm-hotfixes-stable-2024-11-12-16-39; stable releases of 6.11 and before have it too, from that month on
6.17    2dfcd1608f3a "mm/page_alloc: let page freeing clear any set page type", and of the same series
        "mm/page-alloc: remove PageMappingFlags()"
======  ==============================================================================================
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

__all__ = ["FreePath", "When", "path_of"]


class When(Enum):
    """When a kernel without CONFIG_DEBUG_VM checks the pages that are freed."""

    ALWAYS = "always"
    AT_DRAIN = "when a CPU's list is drained"
    BY_KEY = "if check_pages_enabled is on"


@dataclass(frozen=True)
class FreePath:
    """What is particular to the kernels since a release.

    :ivar check: the function that checks a page
    :ivar at_drain: the one that does so when a CPU's list is drained
    :ivar frees_rest: whether the block's other pages are freed though the first is still in use
    :ivar blocks_on_pcp: whether blocks of more than a page go to a CPU's list
    :ivar let_mapping: bits of ``page->mapping``: if one is set, the first page may keep it to the end
    :ivar put_clears: the flags, besides PG_lru, that ``put_page`` takes off a page on an LRU list
    :ivar asserts_single: whether the order of a compound page is asserted when it is freed as a single page
    :ivar lets_mlocked: whether the first page may be mlocked
    :ivar wipes_type: whether the first page's type is wiped off
    :ivar has_lines: whether the lines of assertions are known: they move with every stable release
    """

    since: tuple[int, int]
    check: str = "free_pages_check"
    when: When = When.ALWAYS
    at_drain: str = ""
    frees_rest: bool = False
    blocks_on_pcp: bool = False
    let_mapping: int = 1
    knows_pools: bool = False
    put_clears: tuple[str, ...] = ("PG_active", "PG_unevictable")
    asserts_single: bool = True
    lets_mlocked: bool = False
    wipes_type: bool = False
    has_lines: bool = False


_DRAIN = "bulkfree_pcp_prepare"
_BAD = "free_page_is_bad"
#: ``page->mapping``'s bits of anonymous memory, and, until 6.16, of what can be moved though it is a driver's.
_BITS = 3
_MLOCKED = ("PG_active", "PG_unevictable", "PG_mlocked")
_PATHS = (
    FreePath((4, 0), has_lines=True),
    FreePath((4, 1)),
    FreePath((4, 7), "free_pages_check", When.AT_DRAIN, _DRAIN, let_mapping=_BITS, asserts_single=False),
    FreePath((5, 10), "check_free_page", When.AT_DRAIN, _DRAIN, True, let_mapping=_BITS, asserts_single=False),
    FreePath((5, 14), "check_free_page", When.AT_DRAIN, _DRAIN, True, True, _BITS, asserts_single=False),
    FreePath((5, 18), "check_free_page", When.AT_DRAIN, _DRAIN, True, True, _BITS, False, _MLOCKED, False),
    FreePath((6, 1), _BAD, When.AT_DRAIN, _DRAIN, True, True, _BITS, False, _MLOCKED, False),
    FreePath((6, 3), _BAD, When.BY_KEY, "", True, True, _BITS, False, _MLOCKED, False),
    FreePath((6, 7), _BAD, When.BY_KEY, "", True, True, _BITS, False, _MLOCKED, True),
    FreePath((6, 8), _BAD, When.BY_KEY, "", True, True, _BITS, True, _MLOCKED, True),
    FreePath((6, 12), _BAD, When.BY_KEY, "", True, True, _BITS, True, _MLOCKED, True, True),
    FreePath((6, 17), _BAD, When.BY_KEY, "", True, True, 1, True, _MLOCKED, True, True, True),
)


def path_of(release: tuple[int, int]) -> FreePath:
    """How a release frees."""
    return max((path for path in _PATHS if path.since <= release), key=lambda path: path.since, default=_PATHS[0])
