# SPDX-License-Identifier: GPL-2.0-only
"""The kernel's lists in memory, against lists of Python; and every way in which links can be wrong."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from physmem import list_head
from physmem.errors import CorruptionError
from physmem.ram import Ram
from physmem.space import AddressSpace

PAGE_OFFSET = 0xFFFF880000000000
HEADS = (0x100, 0x200)
ENTRIES = range(0x1000, 0x1000 + 12 * 64, 64)


def va(at: int) -> int:
    return PAGE_OFFSET + at


def forward(space: AddressSpace, head: int) -> list[int]:
    """Physical addresses of a list's entries, by their next links."""
    found, at = [], space.ram.u64(head) - PAGE_OFFSET
    while at != head:
        found.append(at)
        assert len(found) <= len(ENTRIES)
        at = space.ram.u64(at) - PAGE_OFFSET
    return found


def backward(space: AddressSpace, head: int) -> list[int]:
    found, at = [], space.ram.u64(head + 8) - PAGE_OFFSET
    while at != head:
        found.append(at)
        assert len(found) <= len(ENTRIES)
        at = space.ram.u64(at + 8) - PAGE_OFFSET
    return found


OPERATION = st.tuples(
    st.sampled_from(["add", "add_tail", "add_after", "add_before", "del", "move"]),
    st.sampled_from(range(len(ENTRIES))),
    st.integers(0, 1),
    st.integers(0, len(ENTRIES) - 1),
)


@settings(deadline=None)
@given(operations=st.lists(OPERATION, max_size=60))
def test_lists_are_lists(operations: list[tuple[str, int, int, int]]) -> None:
    ram = Ram(1 << 20)
    space = AddressSpace(
        ram,
        page_offset=PAGE_OFFSET,
        start_kernel_map=0xFFFFFFFF80000000,
        phys_base=0,
        kernel_image_size=512 << 20,
        mem_map=0xFFFFEA0000000000,
        memmap=memoryview(bytearray()).cast("Q"),
        memmap_shift=21,
        list_poison1=0xDEAD000000100100,
        list_poison2=0xDEAD000000200200,
    )
    model: list[list[int]] = [[], []]
    for head in HEADS:
        list_head.init_list_head(space, va(head), head)
    for name, number, which, place in operations:
        entry, head, here = ENTRIES[number], HEADS[which], model[which]
        home = next((entries for entries in model if entry in entries), None)
        if name == "del" and home is not None:
            list_head.list_del(space, va(entry), entry)
            home.remove(entry)
            assert (ram.u64(entry), ram.u64(entry + 8)) == (0xDEAD000000100100, 0xDEAD000000200200)
        elif name == "move" and home is not None:
            list_head.list_move(space, va(entry), entry, va(head), head)
            home.remove(entry)
            here.insert(0, entry)
        elif name == "add" and home is None:
            list_head.list_add(space, va(entry), entry, va(head), head)
            here.insert(0, entry)
        elif name == "add_tail" and home is None:
            list_head.list_add_tail(space, va(entry), entry, va(head), head)
            here.append(entry)
        elif name in ("add_after", "add_before") and home is None and here:
            position = place % len(here)
            neighbour = here[position]
            add = list_head.list_add if name == "add_after" else list_head.list_add_tail
            add(space, va(entry), entry, va(neighbour), neighbour)
            here.insert(position + (name == "add_after"), entry)
        for start, entries in zip(HEADS, model, strict=True):
            assert forward(space, start) == entries
            assert backward(space, start) == entries[::-1]
            assert list_head.list_empty(space, va(start), start) is (not entries)
            assert list_head.first(space, start) == va(entries[0] if entries else start)
            assert list_head.last(space, start) == va(entries[-1] if entries else start)


# -- damage -------------------------------------------------------------------------------

HEAD, A, B, C = 0x100, 0x1000, 0x1040, 0x1080
LEADS = {
    "NULL": 0,
    "user space": 0x7FFF12345678,
    "odd": PAGE_OFFSET + A + 4,
    "past memory": PAGE_OFFSET + (1 << 20),
    "elsewhere": PAGE_OFFSET + 0x8000,
    "all ones": (1 << 64) - 1,
}


@pytest.fixture
def space(address_space: Callable[..., AddressSpace]) -> AddressSpace:
    """A list of A, B and C."""
    space = address_space(Ram(1 << 20))
    list_head.init_list_head(space, va(HEAD), HEAD)
    for entry in (A, B, C):
        list_head.list_add_tail(space, va(entry), entry, va(HEAD), HEAD)
    return space


def contents(space: AddressSpace) -> bytes:
    return space.ram.read(0, space.ram.size)


@pytest.mark.parametrize("value", LEADS.values(), ids=LEADS)
@pytest.mark.parametrize("link", [0, 8], ids=["next", "prev"])
def test_a_wrong_link_is_not_followed(space: AddressSpace, link: int, value: int) -> None:
    space.ram.set_u64(B + link, value)
    before = contents(space)
    with pytest.raises(CorruptionError, match=rf"list_links: list_head {va(B):#x}: the neighbours' links do not lead"):
        list_head.list_del(space, va(B), B)
    with pytest.raises(CorruptionError):
        list_head.list_move(space, va(B), B, va(HEAD), HEAD)
    assert contents(space) == before


@pytest.mark.parametrize("value", LEADS.values(), ids=LEADS)
def test_a_wrong_head_takes_nothing_in(space: AddressSpace, value: int) -> None:
    for link, add in ((0, list_head.list_add), (8, list_head.list_add_tail)):
        right = space.ram.u64(HEAD + link)
        space.ram.set_u64(HEAD + link, value)
        before = contents(space)
        with pytest.raises(CorruptionError, match="list_links"):
            add(space, va(0x2000), 0x2000, va(HEAD), HEAD)
        assert contents(space) == before
        space.ram.set_u64(HEAD + link, right)


def test_deleting_twice(space: AddressSpace) -> None:
    list_head.list_del(space, va(B), B)
    with pytest.raises(CorruptionError, match="list_links"):
        list_head.list_del(space, va(B), B)


def test_the_page_of_a_damaged_list_is_named(address_space: Callable[..., AddressSpace]) -> None:
    """An entry inside the page array is the ``lru`` of some page."""
    space = address_space(Ram(8 << 20))
    lru = 0xFFFFEA0000000000 + 64 * 1234 + 32
    at = (2 << 20) + 64 * 1234 + 32
    with pytest.raises(CorruptionError) as caught:
        list_head.list_del(space, lru, at)
    assert (caught.value.rule, caught.value.pfn) == ("list_links", 1234)
