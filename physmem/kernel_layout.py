# SPDX-License-Identifier: GPL-2.0-only
"""The layout that a kernel carries in its own memory: VMCOREINFO, and BTF where its symbols say that it is.

BTF is read when something is asked that VMCOREINFO does not tell, and not before.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import TypeVar

from physmem.errors import AbsentError, AddressError, LayoutError, SymbolError
from physmem.image import VmcoreInfo
from physmem.kallsyms import Kallsyms, Tables, anchors_of, read_kallsyms
from physmem.kallsyms_search import find_tables
from physmem.regions import KernelImage
from physmem.structs import btf
from physmem.structs.bounds import check_struct
from physmem.structs.btf_layout import LazyLayout, read_btf
from physmem.structs.field import StructLayout
from physmem.structs.layout import Layout
from physmem.structs.lazy import Lazy

__all__ = ["find_kallsyms", "own_layout"]

T = TypeVar("T")


def find_kallsyms(info: VmcoreInfo, image: KernelImage) -> Kallsyms:
    """The kernel's own symbol table.

    :raises SymbolError: it has none, or the table makes no sense
    :raises AbsentError: the table is not in the memory image
    """
    anchors = anchors_of(info)
    tables = Tables.of(info)
    if tables is not None:
        return read_kallsyms(tables, image, anchors)
    start = info.symbol("_stext")
    for candidate in find_tables(image.memory, image.phys(start), start):
        try:
            return read_kallsyms(candidate, image, anchors)
        except (SymbolError, AbsentError, AddressError):
            continue
    raise SymbolError("kallsyms: not found in the kernel's image")


def own_layout(info: VmcoreInfo, symbols: Mapping[str, int], image: KernelImage) -> LazyLayout:
    """The layout of the kernel by its own account.

    Where it has no BTF, what VMCOREINFO does not tell is a LayoutError that says why and what to do.
    """
    types = _Types(info, symbols, image)
    return LazyLayout(
        Lazy(types.struct, lambda: iter(types.layout.structs)),
        Lazy(types.enum, lambda: iter(types.layout.enums)),
        types.told.constants,
        "VMCOREINFO + BTF",
        Lazy(types.enumerator, types.enumerator_names),
    )


class _Types:
    """What VMCOREINFO tells, and BTF."""

    def __init__(self, info: VmcoreInfo, symbols: Mapping[str, int], image: KernelImage) -> None:
        self.told = Layout.from_vmcoreinfo(info)
        self._info = info
        self._symbols = symbols
        self._image = image
        self._failure = ""

    @cached_property
    def layout(self) -> Layout:
        """Both together, or VMCOREINFO alone if there is no BTF; LayoutError if they disagree."""
        try:
            found = read_btf(self._read())
        except (SymbolError, LayoutError, AbsentError, AddressError) as error:
            self._failure = str(error)
            return self.told
        return found.merge(self.told)

    def _read(self) -> bytes:
        start, stop = self._symbols["__start_BTF"], self._symbols["__stop_BTF"]
        if not 0 < stop - start <= btf.MAX_BYTES:
            raise LayoutError(f"BTF of {stop - start} bytes: at most {btf.MAX_BYTES} are read")
        return self._image.read(start, stop - start)

    def struct(self, tag: str) -> StructLayout | None:
        found = self._found(f"struct {tag}", self.layout.structs.get(tag))
        return None if found is None else check_struct(found, self.layout.source)

    def enum(self, name: str) -> Mapping[str, int] | None:
        return self._found(f"enum {name}", self.layout.enums.get(name))

    def enumerator(self, name: str) -> int | None:
        return self._found(name, self.layout._enumerators.get(name))

    def enumerator_names(self) -> Iterator[str]:
        return iter(self.layout._enumerators)

    def _found(self, what: str, value: T | None) -> T | None:
        if value is None and self._failure:
            release = self._info.get("OSRELEASE", "which it does not name")
            raise LayoutError(
                f"{what} is not known for this kernel (release {release}; {self._failure}): give a layout with --layout"
            )
        return value
