# SPDX-License-Identifier: GPL-2.0-only
"""``kernelmm demo``: the whole story, true, and on one screen."""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import kernelmm

SHIPPED = Path(kernelmm.__file__).parent / "data" / "linux-4.0-128M.vmcore.xz"


def demo(environment: dict[str, str], *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", "from kernelmm.cli import main; main()", "demo", *map(str, arguments)],
        env={name: value for name, value in environment.items() if name != "PHYSMEM_ENGINE"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_it_fits_on_one_screen(project_environment: dict[str, str]) -> None:
    done = demo(project_environment)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert len(lines) <= 62
    assert max(map(len, lines)) <= 80
    for part in (
        "ELF core (xz) of Linux 4.0.0",
        "Node 0 zone DMA32",
        "PMD   0 at",
        "alloc_pages(GFP_KERNEL, 3) = pfn 27520",
        "__rmqueue_smallest",
        "__free_one_page",
        "mm_page_alloc_zone_locked: pfn=27520 order=3",
        "clean: nothing found by",
        "vm_stat[NR_FREE_PAGES] 24443 -> 24439",
        "struct pages: 1 free -> in use",
        "A machine of our own: 64 MiB, two nodes, two CPUs",
    ):
        assert part in done.stdout


def test_its_free_lists_are_the_kernels_own(project_environment: dict[str, str], oracle: Callable[[str], Any]) -> None:
    """The shipped image is the recording's: /proc/buddyinfo was read just before, and has 11 numbers a line."""
    case = oracle("n128_s1")
    assert hashlib.sha256(SHIPPED.read_bytes()).digest() == hashlib.sha256(case.a.read_bytes()).digest()
    row = re.compile(r"^ *Node 0,? zone +(\w+)((?: +\d+){11}) *$", re.MULTILINE)
    shown = [(zone, counts.split()) for zone, counts in row.findall(demo(project_environment).stdout)]
    proc = [(zone, counts.split()) for zone, counts in row.findall(case.file("proc.txt").read_text())]
    # Behind them are those of the machine of our own.
    assert [zone for zone, _ in shown[:2]] == ["DMA", "DMA32"]
    assert shown[:2] == proc[:2]


@pytest.mark.parametrize("case", ["n256x2_s6n", "u128_s1"])
def test_any_image_that_is_understood(
    project_environment: dict[str, str], oracle: Callable[[str], Any], case: str
) -> None:
    done = demo(project_environment, oracle(case).a)
    assert (done.returncode, done.stderr) == (0, "")
    assert "clean: nothing found by" in done.stdout


def test_the_image_stays_as_it_is(project_environment: dict[str, str]) -> None:
    before = SHIPPED.read_bytes()
    assert demo(project_environment).returncode == 0
    assert SHIPPED.read_bytes() == before


def test_bad_images(project_environment: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no image")
    done = demo(project_environment, tmp_path / "text")
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(r"kernelmm: .*text: .*not a memory image.*\n", done.stderr)
