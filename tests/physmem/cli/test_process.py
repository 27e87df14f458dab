# SPDX-License-Identifier: GPL-2.0-only
"""The program as a process: what a shell sees."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from physmem import engine


@pytest.fixture
def physmem(oracle):
    """Starts ``physmem`` in the folder of a case."""

    def start(*args, **options):
        command = [sys.executable, "-m", "physmem", *args]
        return subprocess.Popen(command, cwd=oracle / "n128_s1", **options)

    return start


def test_output_goes_to_standard_output_and_errors_to_the_other(physmem, oracle):
    good = physmem("buddyinfo", "A.vmcore.xz", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    out, err = good.communicate(timeout=60)
    assert (good.returncode, err) == (0, b"")
    assert out.startswith(b"Node 0, zone      DMA      2      1      2 ")
    bad = physmem("buddyinfo", "nothing", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    out, err = bad.communicate(timeout=60)
    assert (bad.returncode, out) == (2, b"")
    assert err == b"physmem: nothing: cannot be read: No such file or directory\n"


def test_a_difference_is_status_1(physmem):
    assert physmem("diff", "A.vmcore.xz", "B.vmcore.xz", stdout=subprocess.DEVNULL).wait(timeout=60) == 1
    assert physmem("diff", "B.vmcore.xz", "B.vmcore.xz", stdout=subprocess.DEVNULL).wait(timeout=60) == 0


def test_a_reader_that_goes_away(physmem):
    reader, writer = os.pipe()
    process = physmem("diff", "--pages", "A.vmcore.xz", "B.vmcore.xz", stdout=writer, stderr=subprocess.PIPE)
    os.close(writer)
    os.close(reader)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (141, b"")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no device that is always full")
def test_a_full_disk(physmem):
    with open("/dev/full", "wb") as full:
        process = physmem("info", "A.vmcore.xz", stdout=full, stderr=subprocess.PIPE)
        _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (2, b"physmem: output: No space left on device\n")


def test_a_terminal_gets_ruled_tables(physmem):
    pty = pytest.importorskip("pty", reason="this system has no terminals")
    master, slave = pty.openpty()
    process = physmem("check", "--rules", stdout=slave, env={**os.environ, "TERM": "xterm", "COLUMNS": "120"})
    os.close(slave)
    shown = b""
    while True:
        try:
            data = os.read(master, 65536)
        except OSError:  # the other end is closed
            break
        if not data:
            break
        shown += data
    assert process.wait(timeout=60) == 0
    os.close(master)
    assert "─────" in shown.decode()


#: What small verbs do without: each takes longer to import than their work takes.
HEAVY = ("numpy", "construct", "rich.console", "hashlib", "zipfile")


SMALL = [
    "info",
    "buddyinfo",
    "zoneinfo",
    "meminfo",
    "vmstat",
    "iomem",
    "fragmentation",
    "pages",
    "pagetypeinfo",
    "vtop",
]


@pytest.mark.parametrize("verb", SMALL)
def test_small_verbs_start_without_large_modules(oracle, verb):
    if engine.current() == "interpreted":
        pytest.skip("interpreted, symbols are looked for with numpy")
    rest = ["ffffffff81000000"] if verb == "vtop" else []
    image = oracle.parent / "vmcores/deb61-1g-2node/image.vmcore.xz"
    command = [sys.executable, "-X", "importtime", "-m", "physmem", verb, image, *rest]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    imported = {row.rpartition("|")[2].strip() for row in done.stderr.splitlines()}
    assert "physmem.dump" in imported
    assert not imported & set(HEAVY)
