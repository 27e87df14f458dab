# SPDX-License-Identifier: GPL-2.0-only
"""One ``struct page`` to look at: its fields under their C names, and what its flags word says."""

from __future__ import annotations

from kernelmm.core import mmzone
from kernelmm.core import page as page_fields
from kernelmm.core.mm import Mm
from physmem import abi, address
from physmem.errors import LayoutError
from physmem.inspect.pageformat import PageFormat
from physmem.structs.layout import Layout

__all__ = ["PageView"]


class Members:
    """The members of a struct inside ``struct page``: ``lru`` has ``lru.next``."""

    def __init__(self, view: PageView, name: str) -> None:
        self._view = view
        self._name = name

    def __getattr__(self, name: str) -> int | Members:
        return getattr(self._view, f"{self._name}.{name}")  # type: ignore[no-any-return]

    def __repr__(self) -> str:
        prefix = f"{self._name}."
        names = (name.removeprefix(prefix) for name in self._view.field_names() if name.startswith(prefix))
        return f"<{self._name}: {' '.join(names)}>"


class PageView:
    """The live ``struct page`` at a kernel address; every look reads memory anew.

    The fields of the kernel's layout are attributes: ``view._count``, ``view.lru.next``.

    :ivar page: ``struct page *``
    :ivar pfn: page frame number
    """

    def __init__(self, mm: Mm, layout: Layout, page: int) -> None:
        self._mm = mm
        self._layout = layout
        self._at = address.page_off(mm, page)
        self.page = page
        self.pfn = address.page_to_pfn(mm, page)

    def __getitem__(self, name: str) -> int:
        """Value of an integer or pointer field by its C name, as in ``view["lru.next"]``.

        :raises LayoutError: there is no such field, or it is not an integer of whole bytes
        """
        if self._layout.has("page", f"{name}.counter"):
            # An atomic_t is a struct around an int.
            name += ".counter"
        field = self._layout.field("page", name)
        if field.kind == "struct" or field.bitfield or field.size is None:
            raise LayoutError(f"struct page.{name} is not an integer of whole bytes")
        start = self._at + field.offset
        return int.from_bytes(self._mm.as_u8[start : start + field.size], "little", signed=bool(field.signed))

    def __getattr__(self, name: str) -> int | Members:
        if any(other.startswith(f"{name}.") for other in self.field_names() if other != f"{name}.counter"):
            return Members(self, name)
        try:
            return self[name]
        except LayoutError as error:
            raise AttributeError(str(error)) from None

    def field_names(self) -> list[str]:
        """C names of the fields; members of nested structs have dotted names."""
        return list(self._layout.struct("page").fields)

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *(name for name in self.field_names() if name.isidentifier())]

    @property
    def flag_names(self) -> list[str]:
        """Names of the flags that are set, without ``PG_``, lowest bit first."""
        return PageFormat(self._layout).flag_names(self["flags"])

    @property
    def nid(self) -> int:
        """Node of the page (``page_to_nid``)."""
        return page_fields.nid(self._mm, self._at)

    @property
    def zone(self) -> str:
        """Name of the page's zone, as in ``DMA32``."""
        zones = [name for name in self._layout.enum("zone_type") if name.startswith("ZONE_")]
        return zones[page_fields.zonenum(self._mm, self._at)].removeprefix("ZONE_")

    @property
    def order(self) -> int | None:
        """Order of the free block that the page heads, or of the compound page; None if it is neither."""
        if page_fields.buddy(self._mm, self._at):
            return self["private"]
        if "head" in self.flag_names:
            return PageView(self._mm, self._layout, self.page + abi.SIZEOF_PAGE)["compound_order"]
        return None

    @property
    def migratetype(self) -> int:
        """Migratetype of the page's pageblock."""
        return mmzone.pageblock_migratetype(self._mm, self.pfn)

    def __repr__(self) -> str:
        flags = "|".join(self.flag_names)
        return (
            f"<page {self.page:#x} pfn:{self.pfn} node:{self.nid} zone:{self.zone} "
            f"count:{self['_count']} mapcount:{self['_mapcount'] + 1} flags:{flags or '-'} order:{self.order}>"
        )

    def _repr_html_(self) -> str:
        from kernelmm.study.notebook import page_html

        return page_html(self)
