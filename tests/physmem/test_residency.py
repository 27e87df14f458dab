# SPDX-License-Identifier: GPL-2.0-only
"""Memory that nobody has touched."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from physmem import residency
from physmem.ram import Ram
from physmem.ranges import Ranges

needs_pagemap = pytest.mark.skipif(
    not os.path.exists("/proc/self/pagemap"), reason="the host has no /proc/self/pagemap"
)


@needs_pagemap
def test_what_is_written_is_touched_and_nothing_else_far_away() -> None:
    ram = Ram(64 << 30)
    assert ram.untouched() == Ranges([(0, 64 << 30)])
    places = [0, 5 << 30, (9 << 30) + 4096, (64 << 30) - 1]
    for place in places:
        ram.set_u8(place, 1)
    touched = ram.ranges - ram.untouched()
    assert all(place in touched for place in places)
    # The host may use huge pages.
    assert touched.total() <= len(places) * (2 << 20)
    assert all(ram.read(start, 1) == b"\0" for start, _ in ram.untouched())


def test_zeros_of_a_file_are_not_touched(tmp_path: Path) -> None:
    size = 8 << 20
    (tmp_path / "ram").write_bytes(bytes(size - 4096) + b"x" * 4096)
    ram = Ram.from_file(tmp_path / "ram")
    assert (ram.ranges - ram.untouched()).total() <= 2 << 20  # the host may use huge pages
    assert (ram.u8(0), ram.u8(size - 1)) == (0, ord("x"))


def test_where_the_host_does_not_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(residency, "_PAGEMAP", "/proc/self/none")
    assert Ram(8192).untouched() == Ranges()
    monkeypatch.setattr(residency, "_PAGEMAP", "/proc/self")
    assert Ram(8192).untouched() == Ranges()
    assert residency.untouched(1, 4096) == Ranges()
