# SPDX-License-Identifier: GPL-2.0-only
"""ELF notes, there and back, and malformed."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from physmem.image import notes
from physmem.image.notes import Note, NoteError, encode, parse, vmcoreinfo_note

names = st.text(st.characters(min_codepoint=1, max_codepoint=255), max_size=9)
lists = st.lists(st.builds(Note, names, st.integers(0, 0xFFFFFFFF), st.binary(max_size=9)), max_size=5)


def test_bytes_of_a_note() -> None:
    data = encode([vmcoreinfo_note(b"A=1\nB")])
    assert data == struct.pack("<III", 11, 5, 0) + b"VMCOREINFO\0\0" + b"A=1\nB\0\0\0"


@given(lists)
def test_round_trip(several: list[Note]) -> None:
    assert parse(encode(several)) == several


@given(st.binary(max_size=120))
def test_any_bytes_are_notes_or_an_error_with_its_place(data: bytes) -> None:
    try:
        parse(data)
    except NoteError as error:
        assert 0 <= error.offset < len(data)


def test_zeros_end_the_notes() -> None:
    one = encode([Note("CORE", 1, b"x")])
    assert parse(one + bytes(64)) == parse(one + bytes(3)) == parse(one)


def test_the_last_description_needs_no_padding() -> None:
    assert parse(encode([Note("CORE", 1, b"abcde")])[:-3]) == [Note("CORE", 1, b"abcde")]


@pytest.mark.parametrize(
    ("data", "offset", "reason"),
    [
        (b"\x01" * 11, 0, "the header of a note needs 12 bytes, 11 are left"),
        (struct.pack("<III", 4, 4, 0) + bytes(7), 0, "ends 1 bytes past its segment"),
        (struct.pack("<III", 0xFFFFFFFF, 0xFFFFFFFF, 0) + bytes(64), 0, "a name of 4294967295"),
        (encode([Note("A", 0, b"")]) + struct.pack("<III", 0, 1, 0), 16, "ends 1 bytes past its segment"),
    ],
)
def test_malformed(data: bytes, offset: int, reason: str) -> None:
    with pytest.raises(NoteError) as caught:
        parse(data)
    assert reason in caught.value.reason
    assert caught.value.offset == offset


def test_number_of_notes_is_bounded() -> None:
    one = struct.pack("<III", 0, 0, 1)
    assert len(parse(one * notes.MAX_NOTES)) == notes.MAX_NOTES
    with pytest.raises(NoteError, match="more than 65536 notes"):
        parse(one * (notes.MAX_NOTES + 1))
