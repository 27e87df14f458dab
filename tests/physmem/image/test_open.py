# SPDX-License-Identifier: GPL-2.0-only
"""The front door, ``open_image``: what is an image, and what is not."""

from __future__ import annotations

import lzma
from collections.abc import Callable
from pathlib import Path

import pytest

from physmem.errors import ImageError
from physmem.image import ElfCore, open_image

BuildElf = Callable[..., bytearray]


def test_opens_by_content(build_elf: BuildElf, tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_bytes(lzma.compress(build_elf([(0x1000, b"memory")])))
    with open_image(str(path)) as image:
        assert isinstance(image, ElfCore)
        assert image.path == str(path)
        assert image.read(0x1000, 6) == b"memory"


@pytest.mark.parametrize("pack", [bytes, lzma.compress])
def test_unknown_formats_are_named_by_their_first_bytes(tmp_path: Path, pack: type[bytes]) -> None:
    path = tmp_path / "image"
    path.write_bytes(pack(b"# a script\n"))
    with pytest.raises(ImageError) as caught:
        open_image(path)
    assert (
        str(caught.value) == f"{path}: offset 0x0: not a memory image known here: begins with 23 20 61 20 73 63 72 69"
    )


def test_a_compressed_stranger_is_refused_without_being_expanded(tmp_path: Path) -> None:
    path = tmp_path / "image.xz"
    path.write_bytes(lzma.compress(bytes(1 << 20)))
    with pytest.raises(ImageError, match="not a memory image known here"):
        open_image(path, max_expanded=1)


def test_limit_of_expansion(build_elf: BuildElf, tmp_path: Path) -> None:
    path = tmp_path / "image.xz"
    data = build_elf([(0, bytes(1 << 20))])
    path.write_bytes(lzma.compress(data))
    open_image(path, max_expanded=len(data)).close()
    with pytest.raises(ImageError, match="expands to more than"):
        open_image(path, max_expanded=len(data) - 1)
