# SPDX-License-Identifier: GPL-2.0-only
"""A recorded run in the form of ``tests/data/oracle``: made with a guest, and judged with our allocator."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from physmem import engine
from physmem.distill import distill
from physmem.dump import Dump, open_dump
from physmem.errors import UsageError
from physmem.image.save import Target
from tools.oracle.guest import Guest, run

__all__ = ["judge_with", "record"]

_PAGE = 4096


def record(kernel: Path, guest: Guest, script: str, case: Path, timeout: float, suffix: str = ".xz") -> None:
    """Run a script, and write ``A.vmcore.xz``, ``B.vmcore.xz``, ``script.txt``, ``result.txt`` and ``console.txt``.

    :param kernel: folder of a kernel that ``build.sh`` made
    :param suffix: of the images; compressing takes longer than all the rest
    """
    case.mkdir(parents=True, exist_ok=True)
    (case / "script.txt").write_text(script)
    with tempfile.TemporaryDirectory(dir=case) as name:
        whole = Path(name)
        lines = run(guest, kernel / "bzImage", script, whole, timeout)
        (case / "result.txt").write_text("".join(f"{line}\n" for line in lines))
        (case / "console.txt").write_text((whole / "console.txt").read_text(errors="replace"))
        known = {"layout": kernel / "layout.json", "symbols": kernel / "symbols.json"}
        with open_dump(whole / "B", **known) as dump:
            frames = shadows(dump, lines)
            distill(dump, Target.of(case / f"B.vmcore{suffix}", "elf"), also=((at, at + _PAGE) for at in frames))
        with open_dump(whole / "A", **known) as dump:
            # There the frames are somebody else's: that they are there is enough.
            distill(dump, Target.of(case / f"A.vmcore{suffix}", "elf"), also=((at, at + 1) for at in frames))


def shadows(dump: Dump, lines: list[str]) -> list[int]:
    """Physical addresses of kmemcheck's shadows of the pages that the script has allocated."""
    found: set[int] = set()
    for line in lines if dump.layout.has("page", "shadow") else ():
        code, pfn, order, *_ = line.split()
        if code == "a" and int(pfn) >= 0:
            fields, exists = dump.pages(int(pfn), int(pfn) + (1 << int(order)), ["shadow"])
            found.update(int(va) for va in np.asarray(fields["shadow"]).reshape(-1)[exists].tolist() if va)
    return sorted(dump.virt_to_phys(va) for va in found)


def judge_with(name: str, kernel: Path, case: Path) -> list[str]:
    """Judge a case with one engine, in a process of its own: what differs, line by line.

    :raises UsageError: the case cannot be run
    """
    child = subprocess.run(
        [sys.executable, "-m", "tools.oracle.judge", str(kernel), str(case)],
        env={**os.environ, "PHYSMEM_ENGINE": name},
        capture_output=True,
        text=True,
    )
    if child.returncode > 1 or (child.returncode and not child.stdout):
        raise UsageError(f"{case}: {name}: {child.stderr.strip().splitlines()[-1:]}")
    return child.stdout.splitlines()


def engines() -> tuple[str, ...]:
    """Those that can be used here."""
    return ("interpreted",) if engine.why_interpreted() else engine.ENGINES
