# SPDX-License-Identifier: GPL-2.0-only
"""A machine with 1 TiB of memory, of which the dump has next to nothing: what is there decides what it costs."""

from __future__ import annotations

import gzip
import json
import struct
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from physmem.dump import open_dump
from physmem.image import open_image

DATA = Path(__file__).parents[1] / "data" / "vmcores"
PFNS = (1 << 40) >> 12
PAGE = 4096
#: Run a verb, and say last how much memory the process has had.
MEASURED = """
import sys
from physmem.cli import main
main(sys.argv[1:], standalone_mode=False)
sys.stdout.flush()
with open("/proc/self/status") as status:
    print(next(int(line.split()[1]) for line in status if line.startswith("VmHWM")), file=sys.stderr)
"""


def verb(*words: str) -> tuple[str, int]:
    """What it prints, and the most memory that it took, in MiB."""
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, *words], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout, int(done.stderr.split()[-1]) >> 10


@pytest.fixture(scope="module")
def kdump(makers: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """deb61-256m, whose node says that it reaches up to 1 TiB; the last page of that is there."""
    with open_dump(DATA / "deb61-256m" / "image.vmcore.xz") as dump:
        pages = {}
        for phys, data in dump.image.segments():
            for at in range(0, len(data), PAGE):
                pages[(phys + at) // PAGE] = bytes(data[at : at + PAGE])
        at = dump.virt_to_phys(dump.pgdats[0]) + dump.layout.offsetof("pglist_data", "node_spanned_pages")
        page = bytearray(pages[at // PAGE])
        struct.pack_into("<Q", page, at % PAGE, PFNS - 1)
        pages[at // PAGE] = bytes(page)
        note = "".join(f"{key}={value}\n" for key, value in dump.info.items()).encode()
    pages[PFNS - 1] = bytes(PAGE)
    path = tmp_path_factory.mktemp("terabyte") / "terabyte.kdump"
    path.write_bytes(makers.make_kdump(pages, PFNS, vmcoreinfo=note))
    return path


@pytest.fixture(scope="module")
def elf(kdump: Path) -> Path:
    path = kdump.with_name("terabyte.elf")
    _, memory = verb("convert", str(kdump), "-o", str(path))
    assert memory < 150
    return path


@pytest.fixture(params=["kdump", "elf"])
def image(request: pytest.FixtureRequest) -> str:
    return str(request.getfixturevalue(request.param))


def test_info(image: str) -> None:
    text, memory = verb("info", image, "--json")
    assert [row["value"] for row in json.loads(text)["facts"] if row["fact"] == "max_pfn"] == [str(PFNS)]
    assert memory < 150


def test_pages_are_told_as_far_as_there_is_a_page_array(image: str, tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("kpageflags", "kpagecount")]
    text, memory = verb("pages", image, "--kpageflags", str(files[0]), "--kpagecount", str(files[1]))
    assert memory < 150
    for file in files:
        # One section, as of the machine that it was; there are two pages less in its node.
        assert file.read_bytes() == gzip.decompress((DATA / "deb61-256m" / f"{file.name}.gz").read_bytes())
    assert int(text.split()[-2]) == 65536


def test_free_lists(image: str) -> None:
    text, memory = verb("buddyinfo", image)
    assert text.split() == (DATA / "deb61-256m" / "buddyinfo_at_dump.txt").read_text().split()
    assert memory < 150


@pytest.fixture
def claimed(makers: ModuleType, tmp_path: Path) -> Path:
    """A dump of a few pages that says it is of 2^52 bytes: its two bitmaps, 128 GiB each, are holes in the file."""
    pages = {7: b"\7" * PAGE, 9: b"\x09" * PAGE}
    small = bytes(makers.make_kdump(pages, 100))
    bitmap, end = 2 * PAGE, (1 << 40) - 1
    size = 1 << 37
    header = bytearray(small[:bitmap])
    struct.pack_into("<I", header, 436, 2 * size // PAGE)
    struct.pack_into("<Q", header, PAGE + 96, end)
    path = tmp_path / "claims.kdump"
    shift = 2 * size - 2 * PAGE
    with path.open("wb") as file:
        file.write(header)
        file.seek(bitmap + size)
        file.write(small[bitmap + PAGE : bitmap + 2 * PAGE])
        file.seek(bitmap + 2 * size)
        descriptors = bytearray(small[bitmap + 2 * PAGE :])
        for at in range(0, 2 * 24, 24):
            struct.pack_into("<Q", descriptors, at, struct.unpack_from("<Q", descriptors, at)[0] + shift)
        file.write(descriptors)
    return path


def test_memory_that_is_only_claimed_costs_nothing(claimed: Path, tmp_path: Path) -> None:
    with open_image(claimed) as image:
        assert list(image.ranges) == [(7 * PAGE, 8 * PAGE), (9 * PAGE, 10 * PAGE)]
        assert image.read(9 * PAGE, PAGE) == b"\x09" * PAGE
        assert image.frames is not None
        assert image.frames.total() == 0
    out = tmp_path / "out.lime"
    text, memory = verb("convert", str(claimed), "-o", str(out))
    assert memory < 150
    assert "8192 bytes of memory" in text


def test_what_has_no_page_array_is_not_checked(image: str) -> None:
    """The node says that it reaches up to 1 TiB, and nothing is wrong with the pages that there are."""
    text, memory = verb("check", image)
    assert memory < 150
    told = [line for line in text.splitlines() if line.startswith("not checked: ")]
    assert any("page_zone" in line and f"pfn {PFNS:#x}" in line for line in told)
    assert not text.startswith("clean")
