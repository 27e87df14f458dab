# SPDX-License-Identifier: GPL-2.0-only
"""New files in the place of old ones, with every system call failing once."""

from __future__ import annotations

import errno
import fcntl
import gc
import gzip
import io
import lzma
import os
import re
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest
import zstandard

from physmem.errors import ImageError
from physmem.image import output
from physmem.image.output import replacing

OLD = b"the old file"
NEW = b"a new file " * 30_000 + bytes(1 << 17) + b"ends"

NAMES = ["image", "image.gz", "image.xz", "image.zst"]


def contents(path: Path) -> bytes:
    data = path.read_bytes()
    if path.suffix == ".gz":
        return gzip.decompress(data)
    if path.suffix == ".xz":
        return lzma.decompress(data)
    if path.suffix == ".zst":
        return zstandard.ZstdDecompressor().decompressobj().decompress(data)
    return data


def write_new(path: Path) -> None:
    with replacing(path) as out:
        for start in range(0, len(NEW), 50_000):
            out.write(NEW[start : start + 50_000])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("old", [True, False])
def test_takes_the_place_of_the_old_file(tmp_path: Path, name: str, old: bool) -> None:
    path = tmp_path / name
    if old:
        path.write_bytes(OLD)
    with replacing(path) as out:
        out.write(NEW)
        assert path.exists() == old
    assert contents(path) == NEW
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", NAMES)
def test_the_same_bytes_make_the_same_file(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    write_new(path)
    first = path.read_bytes()
    write_new(path)
    assert path.read_bytes() == first


@pytest.mark.parametrize("tail", [b"", b"x"])
def test_zeros_take_no_room(tmp_path: Path, tail: bytes) -> None:
    path = tmp_path / "image"
    with replacing(path) as out:
        out.write(b"head")
        for _ in range(64):
            out.write(bytes(1 << 20))
        out.write(tail)
    assert path.stat().st_size == 4 + (64 << 20) + len(tail)
    assert path.stat().st_blocks * 512 < 1 << 20
    with path.open("rb") as file:
        assert file.read(8) == b"head\0\0\0\0"
        file.seek(-1 - len(tail), os.SEEK_END)
        assert file.read() == b"\0" + tail


def test_permissions(tmp_path: Path) -> None:
    path = tmp_path / "image"
    umask = os.umask(0o027)
    try:
        write_new(path)
    finally:
        os.umask(umask)
    assert path.stat().st_mode & 0o777 == 0o640
    path.chmod(0o604)
    write_new(path)
    assert path.stat().st_mode & 0o777 == 0o604


def test_symbolic_links_are_followed(tmp_path: Path) -> None:
    directory = tmp_path / "elsewhere"
    directory.mkdir()
    target, link = directory / "target", tmp_path / "link"
    link.symlink_to(target)
    for _ in range(2):
        write_new(link)
        assert link.is_symlink()
        assert contents(target) == NEW
        assert list(directory.iterdir()) == [target]
        target.write_bytes(OLD)


# -- failures ----------------------------------------------------------------


class Fault:
    """Counts the calls that could fail, and fails one of them."""

    def __init__(self, code: int) -> None:
        self.code = code
        self.calls = 0
        self.at = -1

    def __call__(self, what: str) -> None:
        self.calls += 1
        if self.calls == self.at:
            raise OSError(self.code, f"{what} was made to fail")


@pytest.fixture(params=["EIO", "ENOSPC"])
def fault(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Fault:
    """Every system call that ``output`` makes on its files can fail."""
    fault = Fault(getattr(errno, request.param))

    class File(io.FileIO):
        def write(self, data: Any, /) -> int:
            fault("write")
            return super().write(data) or 0

        def seek(self, offset: int, whence: int = 0, /) -> int:
            fault("seek")
            return super().seek(offset, whence)

        def truncate(self, size: int | None = None, /) -> int:
            fault("truncate")
            return super().truncate(size)

        def close(self) -> None:
            was_open = not self.closed
            super().close()
            if was_open:
                fault("close")

    def failing(function: Callable[..., Any], what: str) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            fault(what)
            return function(*args, **kwargs)

        return call

    monkeypatch.setattr(
        output, "open", lambda descriptor, mode: io.BufferedWriter(File(descriptor, mode)), raising=False
    )
    for name in ("open", "fchmod", "fsync", "link", "replace"):
        monkeypatch.setattr(os, name, failing(getattr(os, name), name))
    return fault


@pytest.fixture(params=[True, False])
def nameless(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether the file system has O_TMPFILE."""
    value: bool = request.param
    if not value:
        monkeypatch.setattr(output, "_TMPFILE", 0)
    return value


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("old", [True, False])
def test_every_failure_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, fault: Fault, nameless: bool, name: str, old: bool
) -> None:
    path = tmp_path / name
    failures = set()
    while True:
        if old:
            path.write_bytes(OLD)
        fault.calls = 0
        fault.at += 1 if fault.at > 0 else 2
        try:
            write_new(path)
        except ImageError as error:
            failures.add(str(error).removeprefix(f"{path}: cannot be written: ").removesuffix(" was made to fail"))
            assert [entry.name for entry in tmp_path.iterdir()] == ([name] if old else [])
            assert not old or path.read_bytes() == OLD
        else:
            break
    assert fault.calls == fault.at - 1
    assert contents(path) == NEW
    assert failures >= {"open", "write", "fsync", "close"} | ({"fchmod"} if old else set())
    assert ("link" in failures) == nameless
    assert ("replace" in failures) == (old or not nameless)


@pytest.mark.parametrize("name", NAMES)
def test_a_disk_that_fills_up(tmp_path: Path, name: str) -> None:
    """A real refusal by the kernel, at several lengths of the file."""
    path = tmp_path / name
    write_new(path)
    length = path.stat().st_size
    path.write_bytes(OLD)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    for limit in {0, 1, length // 2, length - 1}:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limits[1]))
        try:
            with pytest.raises(ImageError, match=r": cannot be written: File too large$"):
                write_new(path)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert list(tmp_path.iterdir()) == [path]
        assert path.read_bytes() == OLD


# -- processes that are killed ---------------------------------------------------

KILLED = """
import os, signal, sys
from physmem.image import output
path, moment = sys.argv[1:]
if moment.startswith("named"):
    output._TMPFILE = 0
if moment == "linked":
    os.replace = lambda *names: os.kill(os.getpid(), signal.SIGKILL)
with output.replacing(path) as out:
    out.write(os.urandom(1 << 20))
    if moment != "linked":
        os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("moment", ["nameless", "named", "linked"])
def test_a_process_that_is_killed(
    tmp_path: Path, nameless: bool, project_environment: dict[str, str], moment: str
) -> None:
    """The old file stays.  What a killed process may leave, the next one removes, and nothing else."""
    path = tmp_path / "image"
    path.write_bytes(OLD)
    command = [sys.executable, "-c", KILLED, str(path), moment]
    done = subprocess.run(command, env=project_environment, check=False, capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert path.read_bytes() == OLD
    left = {entry.name for entry in tmp_path.iterdir()} - {"image"}
    assert len(left) == (moment != "nameless")
    assert all(re.fullmatch(r"\.physmem-[0-9a-f]{16}", name) for name in left)
    others = [tmp_path / ".physmem-notes", tmp_path / ".physmem-0123456789abcdef"]
    others[0].write_text("somebody's")
    others[1].mkdir()
    write_new(path)
    assert sorted(tmp_path.iterdir()) == sorted([path, *others])
    assert contents(path) == NEW


def test_two_processes_at_once(tmp_path: Path, nameless: bool) -> None:
    """Neither takes the other's new file for a leftover."""
    one, two = tmp_path / "one", tmp_path / "two"
    with replacing(one) as first:
        first.write(b"one")
        with replacing(two) as second:
            second.write(b"two")
        with replacing(one) as third:
            third.write(b"three")
    assert (one.read_bytes(), two.read_bytes()) == (b"one", b"two")
    assert sorted(tmp_path.iterdir()) == [one, two]


def test_a_new_file_that_was_taken_for_a_leftover(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between its creation and its lock, another process may have removed it: then there is another one."""
    monkeypatch.setattr(output, "_TMPFILE", 0)
    flock = fcntl.flock
    taken = []

    def late(descriptor: int, operation: int) -> None:
        if not taken:
            taken.extend(tmp_path.iterdir())
            output._remove_leftovers(str(tmp_path))
        flock(descriptor, operation)

    monkeypatch.setattr(output, "_lock", lambda descriptor: late(descriptor, fcntl.LOCK_EX))
    write_new(tmp_path / "image")
    assert len(taken) == 1
    assert not taken[0].exists()
    assert contents(tmp_path / "image") == NEW


@pytest.mark.parametrize("missing", ["O_TMPFILE", "locks"])
def test_file_systems_that_lack_something(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    path = tmp_path / "image"
    path.write_bytes(OLD)
    opened = os.open

    def refuse(name: Any, flags: int, *args: Any, **kwargs: Any) -> int:
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
        return opened(name, flags, *args, **kwargs)

    def no_locks(*args: Any) -> NoReturn:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    if missing == "O_TMPFILE":
        monkeypatch.setattr(os, "open", refuse)
    else:
        monkeypatch.setattr(fcntl, "flock", no_locks)
    write_new(path)
    assert contents(path) == NEW
    assert list(tmp_path.iterdir()) == [path]


def test_a_failed_compressor_is_silent_when_collected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Left open, it would write its last bytes to a closed file."""
    late: list[str] = []

    class Compressor(gzip.GzipFile):
        def close(self) -> None:
            file: Any = self.fileobj
            if file is not None and file.closed:
                late.append("closed after its file")
            super().close()

    monkeypatch.setattr(gzip, "GzipFile", Compressor)
    with pytest.raises(KeyError), replacing(tmp_path / "image.gz") as out:
        out.write(NEW)
        raise KeyError
    del out
    gc.collect()
    assert late == []


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError, ImageError("other", "reason")])
@pytest.mark.parametrize("name", NAMES)
def test_errors_of_the_writer_pass_through(tmp_path: Path, name: str, error: Any) -> None:
    path = tmp_path / name
    path.write_bytes(OLD)

    def fail() -> NoReturn:
        raise error

    with pytest.raises(type(error) if isinstance(error, ImageError) else error), replacing(path) as out:
        out.write(NEW)
        fail()
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_bytes() == OLD


def refusal(path: Path | str) -> str:
    with pytest.raises(ImageError) as caught, replacing(path):
        pytest.fail("the file must not be opened")
    return caught.value.reason


def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(OLD)
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    before = sorted(tmp_path.iterdir())
    assert refusal(tmp_path) == "cannot be written: is not a regular file"
    assert refusal(fifo) == "cannot be written: is not a regular file"
    assert refusal(tmp_path / "none" / "image") == "cannot be written: No such file or directory"
    assert refusal(file / "image") == "cannot be written: Not a directory"
    assert refusal(loop) == "cannot be written: Too many levels of symbolic links"
    assert refusal("a\0b") == "cannot be written: a NUL in its name"
    assert refusal("") == "cannot be written: No such file or directory"
    assert refusal(f"{tmp_path}/none/") == "cannot be written: No such file or directory"
    assert sorted(tmp_path.iterdir()) == before


def test_a_read_only_file_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "image"
    path.write_bytes(OLD)
    path.chmod(0o444)
    # Whoever runs the tests may be above permissions.
    monkeypatch.setattr(os, "access", lambda path, mode: bool(os.stat(path).st_mode & 0o200))
    assert refusal(path) == "cannot be written: the file is read-only"
    assert path.read_bytes() == OLD
