# SPDX-License-Identifier: GPL-2.0-only
"""The declarations beside the hot rooms are what the rooms' annotations say."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def pxd(root: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "tools/pxd.py", *options], cwd=root, capture_output=True, text=True, check=False
    )


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of the packages' sources, to change."""
    for name in ("physmem", "kernelmm", "tools"):
        ignored = shutil.ignore_patterns("__pycache__", "*.so", "*.xz")
        shutil.copytree(ROOT / name, tmp_path / name, ignore=ignored)
    return tmp_path


def test_nothing_is_stale() -> None:
    done = pxd(ROOT, "--check")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_changed_annotation_is_noticed_and_written(checkout: Path) -> None:
    room = checkout / "physmem/word.py"
    room.write_text(
        room.read_text().replace("def add_s32(space: AddressSpace, at: u64", "def add_s32(space: AddressSpace, at: u32")
    )
    done = pxd(checkout, "--check")
    assert (done.returncode, done.stdout) == (1, "stale physmem/word.pxd\n")
    done = pxd(checkout)
    assert (done.returncode, done.stdout) == (0, "wrote physmem/word.pxd\n")
    assert "add_s32(AddressSpace space, uint32_t at," in (checkout / "physmem/word.pxd").read_text()
    assert pxd(checkout, "--check").returncode == 0


def test_an_inline_room_accesses_memory_as_c_does_and_raises_only_if_something_in_it_can(checkout: Path) -> None:
    room = checkout / "physmem/word.py"
    room.write_text(
        room.read_text()
        + """

def peek(space: AddressSpace, at: u64) -> u64:
    return space.as_u64[(at + 8) >> 3]


def peek_past(space: AddressSpace, at: u64) -> s32:
    return space.as_s32[(at >> 2) + 1]


def poke(space: AddressSpace, at: u64) -> None:
    space.as_u8[at] = peek(space, at)


def peek_aligned(space: AddressSpace, at: u64) -> u64:
    if at & 7:
        space.bad_address(at)
    return peek(space, at)


def peek_through(space: AddressSpace, at: u64) -> u64:
    return peek(space, peek_aligned(space, at))
"""
    )
    assert pxd(checkout).returncode == 0
    written = (checkout / "physmem/word.pxd").read_text()
    for line in (
        "cdef inline uint64_t peek(AddressSpace space, uint64_t at) noexcept:",
        "        return (<uint64_t *>&space.as_u8[at + 8])[0]",
        "        return (<int32_t *>&space.as_u8[(at >> 2) + 1 << 2])[0]",
        "cdef inline int poke(AddressSpace space, uint64_t at) noexcept:",
        "        space.as_u8[at] = peek(space, at)",
        "cdef inline uint64_t peek_aligned(AddressSpace space, uint64_t at) except? 0xBAD0BAD0BAD0BAD0:",
        "cdef inline uint64_t peek_through(AddressSpace space, uint64_t at) except? 0xBAD0BAD0BAD0BAD0:",
    ):
        assert line in written.split("\n"), line


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("    other = at", "local 'other' has no type"),
        ("    other: str = ''", "'str' has no C type"),
        ("    return at + 0x1234567890", "0x1234567890 needs a local with a type"),
    ],
)
def test_what_would_be_slow_or_wrong_in_c_is_refused(checkout: Path, line: str, message: str) -> None:
    room = checkout / "physmem/word.py"
    room.write_text(room.read_text() + f"\n\ndef new(space: AddressSpace, at: u64) -> u64:\n{line}\n    return at\n")
    done = pxd(checkout, "--check")
    assert done.returncode != 0
    assert message in done.stderr
