# SPDX-License-Identifier: GPL-2.0-only
"""DWARF: the types of a program, as its debug information has them, versions 2 to 5.

A kernel has two thousand compilation units, each with all the types that it
uses, so that one or two of them say everything about memory: those that were
compiled from certain files are looked into, and no others.  Of a program that
has no such file, all units are.

Types are given as BTF has them (:class:`physmem.structs.btf.Type`): BTF is made
of DWARF, and one reader makes layouts of either.  The number of a type is its
place in ``.debug_info``, with the number of dimensions that are left out, of an
array of several, above 48 bits.

The data may be anything: pyelftools takes single entries apart, and the walk
over them is done here, where it always goes forward.
"""

from __future__ import annotations

import contextlib
import io
import struct
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any

from physmem.errors import LayoutError, PhysmemError, UnsupportedError
from physmem.structs.btf import Kind, Member, Type

__all__ = ["SECTIONS", "Dwarf"]

#: The sections that are read.
SECTIONS = (".debug_info", ".debug_abbrev", ".debug_str", ".debug_line_str", ".debug_str_offsets")

#: Where types that memory management needs are used, and as good as all of them are.
_FILES = (
    *("mm/page_alloc.c", "mm/hugetlb.c", "mm/vmstat.c", "mm/slub.c", "mm/sparse.c", "mm/vmscan.c"),
    *("kernel/resource.c", "init/version.c"),
)
#: Bytes at the start of a unit among which the offset of its name is.
_HEAD = 64
#: Far above what kernels need: units, bytes of one, entries that are looked at.
_MAX_UNITS = 1 << 17
_MAX_UNIT = 64 << 20
_MAX_ENTRIES = 1 << 20
#: The most bytes of a unit's abbreviations, and units that are looked into where no file tells which to take.
_MAX_ABBREV = 256 << 10
_MAX_OPENED = 256
_MAX_DIMS = 8
_DIMS = 48

_KINDS = {
    "DW_TAG_base_type": Kind.INT,
    "DW_TAG_pointer_type": Kind.PTR,
    "DW_TAG_array_type": Kind.ARRAY,
    "DW_TAG_structure_type": Kind.STRUCT,
    "DW_TAG_union_type": Kind.UNION,
    "DW_TAG_enumeration_type": Kind.ENUM,
    "DW_TAG_typedef": Kind.TYPEDEF,
    "DW_TAG_volatile_type": Kind.VOLATILE,
    "DW_TAG_const_type": Kind.CONST,
    "DW_TAG_restrict_type": Kind.RESTRICT,
    "DW_TAG_atomic_type": Kind.TYPE_TAG,
    "DW_TAG_subroutine_type": Kind.FUNC_PROTO,
}
_SIZED = (Kind.STRUCT, Kind.UNION, Kind.ENUM)
#: DW_ATE_*: how a base type is encoded.
_BOOLEAN, _SIGNED, _SIGNED_CHAR, _UNSIGNED, _UNSIGNED_CHAR, _UTF = 2, 5, 6, 7, 8, 0x10
_BTF_SIGNED, _BTF_BOOL = 1, 4
_DW_OP_PLUS_UCONST = 0x23


class _Unit:
    """A compilation unit: its entries, and the names of its types.

    :param start: where it begins in ``.debug_info``
    """

    def __init__(self, start: int, sections: Mapping[str, bytes]) -> None:
        from elftools.dwarf.dwarfinfo import DebugSectionDescriptor, DwarfConfig, DWARFInfo

        self.start = start
        names = (
            *("info", "aranges", "abbrev", "frame", "str", "loc", "ranges", "line", "pubtypes", "pubnames", "addr"),
            *("str_offsets", "line_str", "loclists", "rnglists", "sup", "types"),
        )
        given: dict[str, Any] = {f"debug_{name}_sec": None for name in names}
        given |= {"eh_frame_sec": None, "gnu_debugaltlink_sec": None}
        for name, data in sections.items():
            given[f"{name[1:]}_sec"] = DebugSectionDescriptor(io.BytesIO(data), name, 0, len(data), 0)
        config = DwarfConfig(little_endian=True, machine_arch="x64", default_address_size=8)
        self._unit = next(iter(DWARFInfo(config=config, **given).iter_CUs()))
        self._stream = given["debug_info_sec"].stream
        self._end = len(sections[".debug_info"])
        self.top = self.die(self._unit.cu_die_offset)
        self.seen = 0

    def die(self, at: int) -> Any:
        """The entry at a place of the unit."""
        from elftools.dwarf.die import DIE

        if not self._unit.cu_die_offset <= at < self._end:
            raise LayoutError(f"an entry at {at:#x} of a unit of {self._end} bytes")
        return DIE(self._unit, self._stream, at)

    def children(self, parent: Any) -> Iterator[Any]:
        """The entries directly inside an entry."""
        if not parent.has_children:
            return
        at, depth = parent.offset + parent.size, 0
        while at < self._end:
            die = self.die(at)
            self.seen += 1
            if self.seen > _MAX_ENTRIES:
                raise LayoutError(f"more than {_MAX_ENTRIES} entries of one unit")
            at += die.size
            if die.is_null():
                depth -= 1
                if depth < 0:
                    return
                continue
            if depth == 0:
                yield die
            if die.has_children:
                sibling = die.attributes.get("DW_AT_sibling")
                # Only ever forward, whatever the entry says.
                if sibling is not None and self._unit.cu_offset + sibling.value >= at:
                    at = self._unit.cu_offset + sibling.value
                else:
                    depth += 1

    @cached_property
    def types(self) -> dict[int, dict[str, int]]:
        """Of each kind of type, the places by name; those without a name under the empty name, with their place."""
        found: dict[int, dict[str, int]] = {}
        for die in self.children(self.top):
            kind = _KINDS.get(die.tag)
            if kind is not None and "DW_AT_declaration" not in die.attributes:
                found.setdefault(kind, {}).setdefault(_name(die) or f"\0{die.offset}", self.start + die.offset)
        return found

    @cached_property
    def enumerators(self) -> dict[str, int]:
        """All enumerators, of whichever enum."""
        found: dict[str, int] = {}
        for place in self.types.get(Kind.ENUM, {}).values():
            for name, value in self.enumerators_of(self.die(place - self.start)).items():
                found.setdefault(name, value)
        return found

    def enumerators_of(self, enum: Any) -> dict[str, int]:
        """The enumerators of an enum."""
        return {
            _name(die): _number(die, "DW_AT_const_value")
            for die in self.children(enum)
            if die.tag == "DW_TAG_enumerator"
        }


def _name(die: Any) -> str:
    attribute = die.attributes.get("DW_AT_name")
    if attribute is None:
        return ""
    if not isinstance(attribute.value, bytes):
        raise LayoutError(f"the name of the entry at {die.offset:#x} is no text")
    return attribute.value.decode("latin-1")


def _number(die: Any, name: str, default: int = 0) -> int:
    attribute = die.attributes.get(name)
    if attribute is None:
        return default
    if not isinstance(attribute.value, int) or not -(1 << 63) <= attribute.value < 1 << 64:
        raise LayoutError(f"{name} of the entry at {die.offset:#x} is no number")
    return attribute.value


class Dwarf:
    """The types in debug information.  Type 0 is ``void``.

    :param sections: the bytes of :data:`SECTIONS`, as far as there are any
    :param source: what to call it in messages
    :raises LayoutError: there are none, or they are not units of DWARF
    :raises UnsupportedError: pyelftools is not installed
    """

    def __init__(self, sections: Mapping[str, bytes | memoryview], source: str) -> None:
        try:
            import elftools.dwarf  # noqa: F401
        except ImportError:
            raise UnsupportedError("DWARF needs pyelftools: pip install 'physmem[dwarf]'") from None
        self.source = source
        self._info = memoryview(sections.get(".debug_info", b""))
        self._others = {name: bytes(data) for name, data in sections.items() if name != ".debug_info"}
        self._others.setdefault(".debug_abbrev", b"")
        self._starts = self._find_units()
        if not self._starts:
            raise LayoutError(f"{source}: no debug information in it")
        self._opened: dict[int, _Unit] = {}

    @contextlib.contextmanager
    def _reading(self) -> Iterator[None]:
        """Whatever pyelftools makes of bytes that are no DWARF, as an error of this package."""
        try:
            yield
        except LayoutError as error:
            text = str(error)
            raise LayoutError(text if text.startswith(self.source) else f"{self.source}: DWARF: {text}") from None
        except (PhysmemError, MemoryError):
            raise
        except Exception as error:
            text = " ".join(str(error).split())[:100]
            raise LayoutError(
                f"{self.source}: not understood as DWARF: {type(error).__name__} {text}".rstrip()
            ) from None

    # -- units -------------------------------------------------------------------------------------

    def _find_units(self) -> dict[int, int]:
        """Where each unit begins, and where it ends."""
        found: dict[int, int] = {}
        at = 0
        while at + 4 <= len(self._info):
            (length,) = struct.unpack_from("<I", self._info, at)
            end = at + 4 + length
            if length >= 0xFFFFFFF0 or end > len(self._info) or length > _MAX_UNIT or len(found) == _MAX_UNITS:
                raise LayoutError(f"{self.source}: .debug_info: a unit of {length:#x} bytes at {at:#x}")
            found[at] = end
            at = end
        return found

    def _open(self, start: int) -> _Unit:
        if start not in self._opened:
            with self._reading():
                data = bytes(self._info[start : self._starts[start]])
                version, old = struct.unpack_from("<HI", data, 4)
                (new,) = struct.unpack_from("<I", data, 8)
                abbrev = self._others[".debug_abbrev"][: (new if version >= 5 else old) + _MAX_ABBREV]
                sections = {**self._others, ".debug_abbrev": abbrev, ".debug_info": data}
                self._opened[start] = _Unit(start, sections)
        return self._opened[start]

    @cached_property
    def _chosen(self) -> list[int]:
        """Where the units begin that are looked into."""
        found = list(dict.fromkeys(start for file in _FILES for start in self._heads_with(file)))
        return found or list(self._starts)[:_MAX_OPENED]

    def _heads_with(self, file: str) -> Iterator[int]:
        """The units at whose start the name of a file is, or the offset of its name: as good as certainly theirs."""
        marks = [file.encode() + b"\0"]
        for section in (".debug_line_str", ".debug_str"):
            text = self._others.get(section, b"")
            at = text.find(marks[0])
            while at >= 0:
                marks.append(struct.pack("<I", text.rfind(b"\0", 0, at) + 1))
                at = text.find(marks[0], at + 1)
        for start, end in self._starts.items():
            head = bytes(self._info[start : min(start + _HEAD, end)])
            if any(mark in head for mark in marks):
                top = self._open(start).top
                with self._reading():
                    if top.tag == "DW_TAG_compile_unit" and f"/{_name(top)}".endswith(f"/{file}"):
                        yield start

    def _units(self) -> Iterator[_Unit]:
        entries = 0
        for start in self._chosen:
            unit = self._open(start)
            yield unit
            entries += unit.seen
            if entries > _MAX_ENTRIES:
                raise LayoutError(f"{self.source}: more than {_MAX_ENTRIES} entries of debug information")

    def _die(self, number: int) -> tuple[_Unit, Any]:
        number &= (1 << _DIMS) - 1
        for start, unit in self._opened.items():
            if start <= number < self._starts[start]:
                return unit, unit.die(number - start)
        raise LayoutError(f"{self.source}: no type {number:#x}")

    # -- finding -----------------------------------------------------------------------------------

    def find(self, name: str, *kinds: int) -> int | None:
        """Number of the first type of one of these kinds that has the name; None if there is none."""
        with self._reading():
            for unit in self._units():
                for kind in kinds:
                    if name in unit.types.get(kind, {}):
                        return unit.types[kind][name]
        return None

    def names(self, *kinds: int) -> Iterator[str]:
        """The names of all types of these kinds, each once."""
        with self._reading():
            found = [name for unit in self._units() for kind in kinds for name in unit.types.get(kind, {})]
        return (name for name in dict.fromkeys(found) if not name.startswith("\0"))

    def all_of(self, *kinds: int) -> Iterator[Type]:
        """All types of these kinds."""
        with self._reading():
            found = [place for unit in self._units() for kind in kinds for place in unit.types.get(kind, {}).values()]
        return (self.type(place) for place in found)

    def enumerator(self, name: str) -> int | None:
        """The value of an enumerator, of whichever enum; None if there is none of that name."""
        with self._reading():
            for unit in self._units():
                if name in unit.enumerators:
                    return unit.enumerators[name]
        return None

    # -- reading -----------------------------------------------------------------------------------

    def _type_of(self, unit: _Unit, die: Any) -> int:
        """Number of the type that an entry refers to; 0 is void."""
        attribute = die.attributes.get("DW_AT_type")
        if attribute is None:
            return 0
        if not attribute.form.startswith("DW_FORM_ref") or attribute.form in ("DW_FORM_ref_addr", "DW_FORM_ref_sig8"):
            raise LayoutError(f"{attribute.form}: a type in another unit (link-time optimisation, type units)")
        return unit.start + _number(die, "DW_AT_type")

    def type(self, number: int) -> Type:
        """The type with this number."""
        with self._reading():
            unit, die = self._die(number)
            kind = _KINDS.get(die.tag)
            if kind is None:
                return Type(Kind.FWD, _name(die), False, 0, 0, number)
            if "DW_AT_declaration" in die.attributes:
                return Type(Kind.FWD, _name(die), kind == Kind.UNION, 0, 0, number)
            size = _number(die, "DW_AT_byte_size")
            if kind == Kind.INT:
                known = (_BOOLEAN, _SIGNED, _SIGNED_CHAR, _UNSIGNED, _UNSIGNED_CHAR, _UTF)
                kind = Kind.INT if _number(die, "DW_AT_encoding") in known else Kind.FLOAT
                return Type(kind, _name(die), False, 0, size, number)
            if kind in _SIZED:
                count = sum(1 for child in unit.children(die) if child.tag in ("DW_TAG_member", "DW_TAG_enumerator"))
                return Type(kind, _name(die), False, count, size, number)
            return Type(kind, _name(die), False, 0, self._type_of(unit, die), number)

    def members(self, aggregate: Type) -> Iterator[Member]:
        """The members of a struct or union."""
        with self._reading():
            unit, die = self._die(aggregate.at)
            found = [self._member(unit, child) for child in unit.children(die) if child.tag == "DW_TAG_member"]
        return iter(found)

    def _member(self, unit: _Unit, die: Any) -> Member:
        place = die.attributes.get("DW_AT_data_member_location")
        start = 0 if place is None else place.value
        if isinstance(start, list):
            start = self._added(start)
        if not isinstance(start, int) or start < 0:
            raise LayoutError(f"the place of the member at {die.offset:#x} is no number")
        number, bits = self._type_of(unit, die), _number(die, "DW_AT_bit_size")
        bit = 8 * start + _number(die, "DW_AT_data_bit_offset")
        if "DW_AT_bit_offset" in die.attributes:
            # Until DWARF 3: counted from the most significant bit of a storage unit.
            storage = _number(die, "DW_AT_byte_size") or self._storage(number)
            bit += 8 * storage - _number(die, "DW_AT_bit_offset") - bits
        if bit < 0 or not 0 <= bits <= 128:
            raise LayoutError(f"the bits of the member at {die.offset:#x} are none that a struct has")
        return Member(_name(die), number, bit, bits)

    @staticmethod
    def _added(expression: list[int]) -> int:
        """What a location expression adds: DW_OP_plus_uconst and a LEB128, as compilers wrote it once."""
        if not expression or expression[0] != _DW_OP_PLUS_UCONST or len(expression) > 10:
            raise LayoutError("the place of a member is computed")
        return sum((byte & 0x7F) << 7 * i for i, byte in enumerate(expression[1:]))

    def _storage(self, number: int) -> int:
        """Bytes of the integer that a bitfield is of, behind typedefs and qualifiers."""
        for _ in range(_MAX_DIMS * _MAX_DIMS):
            found = self.type(number)
            if found.kind in (Kind.INT, Kind.ENUM) or not found.ref:
                return found.ref
            number = found.ref
        raise LayoutError(f"type {number:#x}: typedefs of typedefs without end")

    def integer(self, number: Type) -> tuple[int, int, int]:
        """Of an int: its BTF_INT_* flags, and where in its bytes its bits begin and how many they are."""
        with self._reading():
            encoding = _number(self._die(number.at)[1], "DW_AT_encoding")
        signed = _BTF_SIGNED if encoding in (_SIGNED, _SIGNED_CHAR) else 0
        return _BTF_BOOL if encoding == _BOOLEAN else signed, 0, 8 * number.ref

    def array(self, array: Type) -> tuple[int, int]:
        """Of an array: number of the type of its elements, and how many it has."""
        with self._reading():
            unit, die = self._die(array.at)
            dims = [child for child in unit.children(die) if child.tag == "DW_TAG_subrange_type"]
            left_out = array.at >> _DIMS
            if left_out >= max(len(dims), 1) or len(dims) > _MAX_DIMS:
                raise LayoutError(f"an array of {len(dims)} dimensions at {die.offset:#x}")
            count = self._count(dims[left_out]) if dims else 0
            if left_out + 1 < len(dims):
                return array.at + (1 << _DIMS), count
            return self._type_of(unit, die), count

    @staticmethod
    def _count(subrange: Any) -> int:
        """Elements of a dimension; 0 if it has no bound that is a number, as the last member of a struct may have."""
        count = subrange.attributes.get("DW_AT_count")
        bound = subrange.attributes.get("DW_AT_upper_bound")
        value = count.value if count is not None else bound.value + 1 if bound and isinstance(bound.value, int) else 0
        # [] is written with a bound of -1 by some compilers, as an unsigned number.
        return value if isinstance(value, int) and 0 < value <= 0xFFFFFFFF else 0

    def parameters(self, function: Type) -> list[int]:
        """Of a FUNC_PROTO: the numbers of the types of its parameters; a last 0 stands for ``...``."""
        tags = ("DW_TAG_formal_parameter", "DW_TAG_unspecified_parameters")
        with self._reading():
            unit, die = self._die(function.at)
            return [self._type_of(unit, child) for child in unit.children(die) if child.tag in tags]

    def enumerators(self, enum: Type) -> dict[str, int]:
        """The enumerators of an enum, in order of declaration."""
        with self._reading():
            unit, die = self._die(enum.at)
            return unit.enumerators_of(die)
