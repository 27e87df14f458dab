# SPDX-License-Identifier: GPL-2.0-only
"""Real images of Linux 4.0 with what the kernel itself said of them, and copies of them to be damaged."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from physmem.dump import Dump, open_dump
from physmem.inspect.zones import Zone, populated_zones
from physmem.ram import Ram

ORACLE = Path(__file__).parents[2] / "data" / "oracle"
CASES = sorted(path.name for path in ORACLE.iterdir())


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test with an argument ``image`` runs on every image: (case, A or B, "before A" or "after B")."""
    if "image" in metafunc.fixturenames:
        both = (("A", "before A"), ("B", "after B"))
        images = [(case, image, when) for case in CASES for image, when in both]
        metafunc.parametrize("image", images, ids=[f"{case}-{image}" for case, image, _ in images])


@pytest.fixture(scope="session")
def oracle() -> Path:
    return ORACLE


@pytest.fixture(scope="session")
def open_case() -> Iterator[Callable[..., Dump]]:
    """Opens the image A, or another, of a case; an image is opened once."""
    dumps: dict[tuple[str, str], Dump] = {}

    def opener(case: str, image: str = "A") -> Dump:
        if (case, image) not in dumps:
            dumps[case, image] = open_dump(ORACLE / case / f"{image}.vmcore.xz")
        return dumps[case, image]

    yield opener
    for dump in dumps.values():
        dump.close()


@pytest.fixture(scope="session")
def proc() -> Callable[[str, str, str], str]:
    """What a file in /proc of a case said: ``proc("n128_s1", "buddyinfo", "before A")``."""

    def reader(case: str, name: str, when: str) -> str:
        text = (ORACLE / case / "proc.txt").read_text()
        part = re.search(rf"^### /proc/{name} \({when}\)\n(.*?)(?=^### |\Z)", text, re.M | re.S)
        assert part
        return part[1].rstrip("\n") + "\n"

    return reader


class Editor:
    """A copy of an image in which to change things, found by the kernel's own names."""

    def __init__(self, dump: Dump) -> None:
        self.ram = Ram.from_image(dump.image)
        self.dump = dump.over(self.ram)
        self.mem_map, self.page_size = dump.mem_map, dump.sizeof_page

    def place(self, address: int, tag: str, name: str) -> tuple[int, int]:
        """Physical address and size of (the first element of) a field."""
        field = self.dump.layout.field(tag, name)
        assert field.element_size is not None
        return self.dump.virt_to_phys(address + field.offset), field.element_size

    def get(self, address: int, tag: str, name: str) -> int:
        at, size = self.place(address, tag, name)
        return int.from_bytes(self.ram.read(at, size), "little")

    def set(self, address: int, tag: str, name: str, value: int, index: int = 0) -> None:
        at, size = self.place(address, tag, name)
        self.ram.write(at + index * size, (value & (1 << 8 * size) - 1).to_bytes(size, "little"))

    def add(self, address: int, tag: str, name: str, delta: int, index: int = 0) -> None:
        at, size = self.place(address, tag, name)
        old = int.from_bytes(self.ram.read(at + index * size, size), "little")
        self.set(address, tag, name, old + delta, index)

    def set_symbol(self, name: str, value: int, offset: int = 0) -> None:
        """Write a u64 into a variable."""
        self.ram.set_u64(self.dump.virt_to_phys(self.dump.symbols[name] + offset), value)

    def page(self, pfn: int) -> int:
        return self.mem_map + pfn * self.page_size

    def lru(self, pfn: int) -> int:
        return self.page(pfn) + self.dump.layout.offsetof("page", "lru")

    def pfn_of(self, lru: int) -> int:
        return (lru - self.lru(0)) // self.page_size

    def get_page(self, pfn: int, name: str) -> int:
        return self.get(self.page(pfn), "page", name)

    def set_page(self, pfn: int, name: str, value: int) -> None:
        self.set(self.page(pfn), "page", name, value)

    def zone(self, name: str = "DMA32", node: int = 0) -> Zone:
        return next(z for z in populated_zones(self.dump) if (z.name, z.node) == (name, node))

    def split_page_array(self, pfn: int, table: int) -> None:
        """Map the 2 MiB of the page array around a page by small pages, whose table is to be at a physical address."""
        entry = list(self.dump.steps(self.page(pfn)))[-1]
        assert entry.shift == 21
        value = self.ram.u64(entry.at)
        for i in range(512):
            self.ram.set_u64(table + 8 * i, (value & ~0x1FF080) + (i << 12))
        self.ram.set_u64(entry.at, table | 0x67)

    def pte(self, table: int, pfn: int) -> int:
        """Physical address of the entry of such a table that maps a page's ``struct page``."""
        return table + 8 * (self.page(pfn) >> 12 & 511)

    # -- lists -------------------------------------------------------------------------------------------------------

    def next(self, entry: int) -> int:
        return self.dump.u64(entry)

    def prev(self, entry: int) -> int:
        return self.dump.u64(entry + 8)

    def set_next(self, entry: int, value: int) -> None:
        self.ram.set_u64(self.dump.virt_to_phys(entry), value)

    def set_prev(self, entry: int, value: int) -> None:
        self.ram.set_u64(self.dump.virt_to_phys(entry) + 8, value)

    def join(self, before: int, after: int) -> None:
        self.set_next(before, after)
        self.set_prev(after, before)

    def unlink(self, pfn: int) -> None:
        self.join(self.prev(self.lru(pfn)), self.next(self.lru(pfn)))

    def link(self, pfn: int, head: int) -> None:
        after = self.next(head)
        self.join(head, self.lru(pfn))
        self.join(self.lru(pfn), after)

    def entries(self, head: int) -> list[int]:
        """The PFNs on a list that is sound."""
        found = []
        entry = self.next(head)
        while entry != head:
            found.append(self.pfn_of(entry))
            entry = self.next(entry)
        return found

    def longest(self, zone: Zone, least: int = 3) -> tuple[int, int, list[int]]:
        """Order, migratetype and PFNs of a free list of the zone with so many entries."""
        for order, heads in enumerate(zone.free_lists):
            for migratetype, head in enumerate(heads):
                pfns = self.entries(head.address)
                if len(pfns) >= least:
                    return order, migratetype, pfns
        raise AssertionError(f"no list of {zone} has {least} entries")


@pytest.fixture
def edit(open_case: Callable[..., Dump]) -> Callable[..., Editor]:
    """A copy of an image that may be changed."""
    return lambda case="n128_s1", image="A": Editor(open_case(case, image))
