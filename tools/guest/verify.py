# SPDX-License-Identifier: GPL-2.0-only
"""``python -m tools.guest.verify FOLDER``: what ``physmem`` says of a guest's dumps, against what the guest said."""

from __future__ import annotations

import argparse
import gzip
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from physmem.dump import Dump, open_dump
from physmem.errors import PhysmemError
from physmem.kallsyms import KernelSymbols

_SHOWN = 3


def verify(folder: Path, dump: Path) -> Iterator[tuple[str, str]]:
    """What was compared, and how it went: empty if all is equal."""
    truth = folder / "truth"
    with open_dump(dump) as opened:
        yield "kallsyms", _kallsyms(opened, gzip.decompress((truth / "kallsyms.gz").read_bytes()))
    for verb in ("buddyinfo", "pagetypeinfo", "zoneinfo", "iomem"):
        yield verb, _lines(_physmem(verb, str(dump)), (truth / f"{verb}.txt").read_text())
    with tempfile.TemporaryDirectory() as scratch:
        for name in ("kpageflags", "kpagecount"):
            target = Path(scratch) / name
            said = _physmem("pages", str(dump), f"--{name}", str(target))
            if not target.exists():
                yield name, said.strip()
                continue
            yield name, _words(target.read_bytes(), gzip.decompress((truth / f"{name}.gz").read_bytes()))
    found = _physmem("check", str(dump))
    yield "check", "" if found.startswith("clean") else found.strip()


def _physmem(*arguments: str) -> str:
    command = [sys.executable, "-m", "physmem", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


def _kallsyms(dump: Dump, truth: bytes) -> str:
    """/proc/kallsyms without what modules add to it."""
    if not isinstance(dump.symbols, KernelSymbols) or dump.symbols.table is None:
        return "no symbol table is found"
    words = [line.split() for line in truth.splitlines() if b"[" not in line]
    # Several symbols have one name: the first is found.
    first = {name.decode("latin-1"): int(address, 16) for address, _, name in reversed(words)}
    found = dict(dump.symbols.table)
    wrong = [name for name in found.keys() | first.keys() if found.get(name) != first.get(name)]
    return f"{len(wrong)} of {len(first)} symbols: {', '.join(wrong[:_SHOWN])}" if wrong else ""


def _lines(ours: str, theirs: str) -> str:
    rows = [line.split() for line in ours.splitlines() if line.strip()]
    wanted = [line.split() for line in theirs.splitlines() if line.strip()]
    if rows == wanted:
        return ""
    different = [(a, b) for a, b in zip(rows, wanted, strict=False) if a != b]
    shown = "; ".join(f"{' '.join(a)} instead of {' '.join(b)}" for a, b in different[:_SHOWN])
    return f"{len(different)} of {len(wanted)} lines, {len(rows)} printed: {shown}"


def _words(ours: bytes, theirs: bytes) -> str:
    size = min(len(ours), len(theirs)) & ~7
    a, b = np.frombuffer(ours[:size], "<u8"), np.frombuffer(theirs[:size], "<u8")
    wrong = np.flatnonzero(a != b)
    if not len(wrong) and len(ours) == len(theirs):
        return ""
    shown = ", ".join(f"pfn {int(i):#x} {int(a[i]):#x} instead of {int(b[i]):#x}" for i in wrong[:_SHOWN])
    return f"{len(wrong)} of {len(b)} pages ({len(ours) // 8} written): {shown}"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.guest.verify", description=__doc__)
    parser.add_argument("folder", type=Path, nargs="+", help="what python -m tools.guest wrote")
    status = 0
    for folder in parser.parse_args().folder:
        for dump in sorted(folder.glob("dump.*")):
            for what, wrong in verify(folder, dump):
                print(f"{dump}: {what + ':':14} {wrong or 'equal'}", flush=True)
                status = 1 if wrong else status
    return status


if __name__ == "__main__":
    try:
        sys.exit(main())
    except PhysmemError as error:
        print(f"verify: {error}", file=sys.stderr)
        sys.exit(2)
