# SPDX-License-Identifier: GPL-2.0-only
"""Which compound pages are those of hugetlbfs (PageHuge, folio_test_hugetlb).

The mark has moved: the address of what frees the page, in its second page (until 4.4); a number for that (until
6.5); a flag of the second page (until 6.8); a page type (since 6.9).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from physmem.dump import Dump
from physmem.inspect.pageformat import PageFormat

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
else:
    from physmem.later import np

__all__ = ["HugetlbFormat"]


class HugetlbFormat:
    """How a kernel marks them."""

    def __init__(self, dump: Dump, form: PageFormat) -> None:
        self._format = form
        self._by_type = "hugetlb" in form.types and dump.release >= (6, 9)
        self._offset = self._size = self._mask = self._value = 0
        if self._by_type:
            return
        layout = dump.layout
        if "PG_hugetlb" in layout.enum("pageflags"):
            self._offset, self._size = layout.offsetof("page", "flags"), 8
            self._mask = self._value = form.bit("PG_hugetlb")
            return
        dtor = next((name for name in ("compound_dtor", "_folio_dtor") if layout.has("page", name)), None)
        if dtor is None and layout.has("folio", "_folio_dtor"):
            self._offset, self._size = layout.offsetof("folio", "_folio_dtor") - dump.sizeof_page, 1
        elif dtor is not None:
            self._offset, self._size = layout.offsetof("page", dtor), layout.sizeof("page", dtor)
        else:
            return
        self._mask = (1 << 8 * self._size) - 1
        if self._size == 8:
            self._value = dump.symbols.find("free_huge_page")
        else:
            constants = layout.enums.get("compound_dtor_id", {})
            self._value = constants.get("HUGETLB_PAGE_DTOR", dump.layout.constants.get("HUGETLB_PAGE_DTOR", 0))

    def mark(self) -> tuple[bool, int, int, int]:
        """Whether the mark is in the first page; its offset in that or in the second, and which bits have which value.

        The mask is 0 if the kernel has no such pages.
        """
        if self._by_type:
            mask, value = self._format.types["hugetlb"]
            return True, self._format.layout.offsetof("page", self._format.mapcount), mask, value
        return False, self._offset, self._mask if self._value else 0, self._value

    def are(self, heads: npt.NDArray[Any], second: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
        """Which of some heads (with the field ``mapcount``) they are, given the bytes of their second pages."""
        if self._by_type:
            return self._format.is_type(heads, "hugetlb")
        if not self._value:
            return np.zeros(len(heads), bool)
        words = np.zeros(len(second), np.uint64)
        for i in range(self._size):
            words |= second[:, self._offset + i].astype(np.uint64) << np.uint64(8 * i)
        found: npt.NDArray[np.bool_] = (words & np.uint64(self._mask)) == np.uint64(self._value)
        return found
