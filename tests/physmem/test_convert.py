# SPDX-License-Identifier: GPL-2.0-only
"""From every format that is read to every one that is written, and back."""

from __future__ import annotations

import json
import lzma
import os
import resource
import signal
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import cramjam
import pytest
from click.testing import CliRunner, Result

from physmem.cli import main
from physmem.convert import convert, opened
from physmem.dump import open_dump
from physmem.errors import ImageError, SymbolError
from physmem.image import Image, open_image, pieces
from physmem.image.save import Target
from physmem.ranges import Ranges

DATA = Path(__file__).parents[1] / "data"
ORACLE = DATA / "oracle" / "n128_s1" / "A.vmcore.xz"
MODERN = [DATA / "vmcores" / name / "image.vmcore.xz" for name in ("deb61-256m", "deb61-1g-2node", "deb612-256m")]
REAL = pytest.mark.parametrize("image", [ORACLE, *MODERN], ids=["4.0", "6.1", "6.1, two nodes", "6.12"])


def physmem(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def assert_same(one: Image, other: Image, but: Ranges | None = None) -> None:
    present = one.ranges - (but or Ranges())
    assert other.ranges == present
    for start, end in present:
        assert one.read(start, end - start) == other.read(start, end - start)


@REAL
@pytest.mark.parametrize("between", ["b.kdump", "b.vmcore.gz", "b.lime", "b.dump --format kdump --compression lzo"])
def test_there_and_back(image: Path, tmp_path: Path, between: str) -> None:
    name, *options = between.split()
    assert physmem("convert", image, "-o", tmp_path / name, *options).exit_code == 0
    assert physmem("convert", tmp_path / name, "-o", tmp_path / "c.vmcore").exit_code == 0
    with open_image(image) as a, open_image(tmp_path / name) as b, open_image(tmp_path / "c.vmcore") as c:
        assert_same(a, b)
        assert_same(a, c)
        # LiME has no notes, and these images do not have the pages in which the kernel has their text.
        assert c.notes == b.notes == (() if "lime" in name else a.notes)


@REAL
def test_the_same_answers(image: Path, tmp_path: Path) -> None:
    for name in ("b.kdump", "b.vmcore"):
        assert physmem("convert", image, "-o", tmp_path / name).exit_code == 0
        with open_dump(image) as one, open_dump(tmp_path / name) as other:
            assert other.page_offset == one.page_offset
            assert other.max_pfn == one.max_pfn
            assert other.pgdats == one.pgdats


def flattened(makers: ModuleType, data: bytes) -> bytes:
    cuts = [(at, min(at + 5000, len(data))) for at in range(0, len(data), 5000)]
    made: bytes = makers.flatten(data, cuts)
    return made


def test_from_every_format(makers: ModuleType, tmp_path: Path) -> None:
    """Flattened, split, AVML, a list of segments: whatever can be opened."""
    pages = {pfn: bytes([pfn]) * 4096 for pfn in (1, 2, 3, 7)}
    whole = Ranges((pfn << 12, (pfn + 1) << 12) for pfn in pages)
    kdump = makers.make_kdump(pages, 8)
    (tmp_path / "kdump").write_bytes(kdump)
    (tmp_path / "flat").write_bytes(flattened(makers, kdump))
    for start in (1, 7):
        run = [pfn for pfn in pages if pfn == start or (start == 1 and pfn < 4)]
        (tmp_path / f"part{start}").write_bytes(b"".join(pages[pfn] for pfn in run))
    for number, split in enumerate([(0, 3), (3, 8)]):
        (tmp_path / f"split{number}").write_bytes(makers.make_kdump(pages, 8, split=split))
    avml = b""
    for pfn, page in pages.items():
        frames = bytes(cramjam.snappy.compress(page))
        header = struct.pack("<4sIQQQ", b"AVML", 2, pfn << 12, (pfn << 12) + 4095, 0)
        avml += header + frames + struct.pack("<Q", len(frames))
    (tmp_path / "avml").write_bytes(avml)
    sources = [
        *(tmp_path / name for name in ("kdump", "flat", "avml")),
        f"{tmp_path}/split1,{tmp_path}/split0",
        f"{tmp_path}/part1@1000,{tmp_path}/part7@0x7000",
    ]
    for source in sources:
        for name in ("o.kdump", "o.vmcore", "o.lime", "o.raw"):
            result = physmem("convert", source, "-o", tmp_path / name, "--json")
            assert result.exit_code == 0, result.output
            told = json.loads(result.stdout)
            assert told["memory"] == whole.total()
            assert told["size"] == (tmp_path / name).stat().st_size
            with open_image(tmp_path / name, raw=True) as image:
                if name == "o.raw":
                    assert "zeros" in told["lost"][-1]
                    assert image.read(0, 0x8000) == b"".join(pages.get(pfn, bytes(4096)) for pfn in range(8))
                else:
                    assert told["lost"] == []
                    assert image.ranges == whole
                    assert all(image.read(pfn << 12, 4096) == page for pfn, page in pages.items())


def test_notes_come_from_memory_where_the_file_has_none(tmp_path: Path) -> None:
    """So an image in LiME's format becomes one that debuggers open."""
    with open_image(MODERN[0]) as image:
        info = image.vmcoreinfo
        (start, _), *_ = (gap for gap in image.ranges.complement() if gap[1] - gap[0] >= 8192)
    text = "".join(f"{key}={value}\n" for key, value in info.items()).encode()
    assert physmem("convert", MODERN[0], "-o", tmp_path / "a.raw").exit_code == 0
    with (tmp_path / "a.raw").open("r+b") as file:
        file.seek(-(-start // 4096) * 4096)
        file.write(text)
    assert physmem("convert", tmp_path / "a.raw", "-o", tmp_path / "b.lime").exit_code == 0
    assert physmem("convert", tmp_path / "b.lime", "-o", tmp_path / "c.kdump").exit_code == 0
    with open_image(tmp_path / "c.kdump") as image:
        assert image.vmcoreinfo == info


def test_the_first_bitmap_is_carried_over(makers: ModuleType, tmp_path: Path) -> None:
    """Which says what memory the machine had."""
    (tmp_path / "a").write_bytes(makers.make_kdump({1: b"1" * 4096}, 20))
    with open_image(tmp_path / "a") as a:
        frames = Ranges(a.frames)
    assert physmem("convert", tmp_path / "a", "-o", tmp_path / "b.kdump").exit_code == 0
    with open_image(tmp_path / "b.kdump") as b:
        assert b.frames == frames


def test_onto_itself(tmp_path: Path) -> None:
    path = tmp_path / "a.vmcore"
    path.write_bytes(lzma.decompress(ORACLE.read_bytes()))
    with open_image(ORACLE) as before:
        assert physmem("convert", path, "-o", path, "--format", "kdump").exit_code == 0
        with open_image(path) as after:
            assert after.format == "kdump-compressed"
            assert_same(before, after)


def test_what_is_said(tmp_path: Path) -> None:
    result = physmem("convert", ORACLE, "-o", tmp_path / "a.raw")
    assert result.stderr.splitlines()[0] == f"physmem: {tmp_path}/a.raw: raw has no notes: 1 are left out (VMCOREINFO)"
    assert "are zeros in the file" in result.stderr.splitlines()[1]
    assert result.stdout.startswith(f"{tmp_path}/a.raw: raw, 2293760 bytes of memory in ")


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["none", "-o", "out"], "none: cannot be read: No such file or directory"),
        ([ORACLE, "-o", "nowhere/out"], "nowhere/out: cannot be written: No such file or directory"),
        ([ORACLE, "-o", "."], ".: cannot be written: is not a regular file"),
        ([ORACLE, "-o", "a.xz", "--format", "kdump"], "page by page, not as a whole"),
        ([ORACLE, "-o", "a.lime", "--compression", "zlib"], "'zlib' is for kdump"),
        ([ORACLE], "Missing option '-o'"),
        ([ORACLE, "-o", "a", "--symbols", "none"], "none: "),
    ],
)
def test_what_cannot_be(arguments: list[object], reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = physmem("convert", *arguments)
    assert result.exit_code == 2
    assert reason in result.stderr
    assert result.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_layouts_that_are_wrong_are_not_passed_over(tmp_path: Path) -> None:
    (tmp_path / "symbols.json").write_text("[]")
    with pytest.raises(SymbolError), opened(str(ORACLE), symbols=str(tmp_path / "symbols.json")):
        pass


# -- faults ----------------------------------------------------------------------

TARGETS = ["out.kdump", "out.vmcore", "out.vmcore.gz", "out.lime", "out.raw"]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A plain file, which others can change."""
    (tmp_path / "from").mkdir()
    path = tmp_path / "from" / "a.vmcore"
    path.write_bytes(lzma.decompress(ORACLE.read_bytes()))
    return path


@pytest.fixture
def target(tmp_path: Path) -> Path:
    (tmp_path / "to").mkdir()
    return tmp_path / "to"


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize("old", [True, False])
def test_a_disk_that_fills_up(source: Path, target: Path, name: str, old: bool) -> None:
    path = target / name
    assert physmem("convert", source, "-o", path).exit_code == 0
    length = path.stat().st_size
    path.write_bytes(b"old") if old else path.unlink()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    for limit in (0, 4096, length // 2, length - 1):
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limits[1]))
        try:
            result = physmem("convert", source, "-o", path)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert (result.exit_code, result.stderr) == (2, f"physmem: {path}: cannot be written: File too large\n")
        assert list(target.iterdir()) == ([path] if old else [])
        assert not old or path.read_bytes() == b"old"


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize("change", ["truncate", "write"])
def test_an_image_that_changes_meanwhile(
    source: Path, target: Path, name: str, change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the middle: an error, and the old file is as it was."""
    path = target / name
    path.write_bytes(b"old")
    monkeypatch.setattr(pieces, "CHUNK", 1 << 16)
    done = 0

    def progress(step: int) -> None:
        nonlocal done
        done += step
        if done > 1 << 20 and change:
            with source.open("r+b") as file:
                os.truncate(source, 1 << 20) if change == "truncate" else file.write(b"\x7f")
                os.utime(source, ns=(1, 1))

    reason = "was cut short while it was open" if change == "truncate" else "was changed by somebody else"
    with opened(str(source)) as image, pytest.raises(ImageError, match=reason):
        convert(image, Target.of(path), progress)
    assert list(target.iterdir()) == [path]
    assert path.read_bytes() == b"old"


KILLED = """
import os, signal, sys
from physmem.convert import convert, opened
from physmem.image import output
from physmem.image.save import Target
source, path, when, nameless = sys.argv[1:]
if nameless == "no":
    output._TMPFILE = 0
done = 0
def progress(step):
    global done
    done += step
    if done > int(when):
        os.kill(os.getpid(), signal.SIGKILL)
with opened(source) as image:
    convert(image, Target.of(path), progress)
"""


@pytest.mark.parametrize(("name", "nameless"), [("out.kdump", "yes"), ("out.vmcore", "no")])
def test_a_process_that_is_killed(
    source: Path, target: Path, name: str, nameless: str, project_environment: dict[str, str]
) -> None:
    path = target / name
    path.write_bytes(b"old")
    for when in (0, 1 << 20):
        command = [sys.executable, "-c", KILLED, str(source), str(path), str(when), nameless]
        done = subprocess.run(command, env=project_environment, check=False, capture_output=True)
        assert done.returncode == -signal.SIGKILL, done.stderr
        assert path.read_bytes() == b"old"
        # Where files cannot be without a name, one is left, until the next run.
        assert len(list(target.iterdir())) == (1 if nameless == "yes" else 2)
    assert physmem("convert", source, "-o", path).exit_code == 0
    assert list(target.iterdir()) == [path]


CHECK = """
import os, sys
from physmem.inspect.check import check
from physmem.dump import open_dump
from physmem.errors import ImageError
from physmem.image import source
path = sys.argv[1]
with open_dump(path) as dump:
    size = os.stat(path).st_size
    for cut in (size - 4096, size // 2, 4096, 0):
        os.truncate(path, cut)
        dump.image._source.data._block.cache_clear()
        try:
            check(dump)
        except ImageError as error:
            print(cut, error.reason.split(":")[0])
"""


def test_an_image_that_is_cut_short_during_a_check(source: Path, project_environment: dict[str, str]) -> None:
    """An error, where with a mapping it was SIGBUS and the end of the process."""
    command = [sys.executable, "-c", CHECK, str(source)]
    done = subprocess.run(command, env=project_environment, check=True, capture_output=True, text=True)
    size = len(lzma.decompress(ORACLE.read_bytes()))
    reason = "was cut short while it was open"
    assert done.stdout.splitlines() == [f"{cut} {reason}" for cut in (size - 4096, size // 2, 4096, 0)]


def test_every_read_of_a_check_can_be_the_one_that_fails(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pread: Callable[[int, int, int], bytes] = os.pread
    calls = 0
    fails_at = 0

    def failing(descriptor: int, size: int, offset: int) -> bytes:
        nonlocal calls
        calls += 1
        if calls == fails_at:
            os.truncate(source, 1000)
        return pread(descriptor, size, offset)

    monkeypatch.setattr(os, "pread", failing)
    whole = source.read_bytes()
    assert physmem("check", source).exit_code == 0
    total = calls
    assert total > 20
    for fails_at in {1, 2, *range(3, total, max(total // 12, 1)), total}:
        source.write_bytes(whole)
        calls = 0
        result = physmem("check", source)
        assert result.exit_code == 2, fails_at
        assert "was cut short while it was open" in result.stderr
        assert result.stderr.count("\n") == 1
