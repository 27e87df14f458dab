# SPDX-License-Identifier: GPL-2.0-only
"""page_owner dumps (/sys/kernel/debug/page_owner): who has every allocated page, of 4.0 and of later kernels."""

from __future__ import annotations

import os
import re
import sys

from kernelmm.validate.ledger import Ledger
from kernelmm.validate.tracefile import TraceFile, named, opened
from physmem.errors import UsageError

__all__ = ["history", "is_page_owner", "read"]

_FIRST = re.compile(
    rb"^Page allocated via order (\d+), mask (0x[0-9a-fA-F]+)(?:\(([^)]*)\))?"
    rb"(?:, pid (\d+)(?:, tgid \d+)?(?: \((.*?)\)(?=,|\s*$))?)?"
)
_START = b"Page allocated via order "
_PFN = re.compile(rb"^PFN (0x[0-9a-fA-F]+|\d+) ")


def is_page_owner(path: str | os.PathLike[str]) -> bool:
    """Whether a file begins as a page_owner dump does; False if it cannot be read."""
    try:
        if path == "-":
            # What is only looked at is still there for whoever reads it.
            peek = getattr(sys.stdin.buffer, "peek", None)
            start: bytes = b"" if peek is None else peek(len(_START))
        else:
            with open(path, "rb") as file:
                start = file.read(len(_START))
        return start.startswith(_START)
    except OSError:
        return False


def read(path: str | os.PathLike[str], *, skip_bad: bool = False) -> tuple[Ledger, int]:
    """The allocations of a dump as a ledger, and how many malformed entries were skipped.

    :raises UsageError: it cannot be read, or is malformed; with the line and what was expected
    """
    name = named(os.fspath(path))
    ledger, bad = Ledger(name), 0
    first: re.Match[bytes] | None = None
    try:
        with opened(os.fspath(path)) as file:
            for number, line in enumerate(file, 1):
                match = _PFN.match(line) if first else None
                if first is not None and match:
                    task = b"%s-%s" % (first[5] or b"", first[4]) if first[4] else b""
                    ledger.enter(number, task, int(match[1], 0), int(first[1]), first[3] or first[2])
                elif first is not None or (line.startswith(b"Page allocated") and not _FIRST.match(line)):
                    expected = "'PFN NUMBER ...'" if first else "'Page allocated via order N, mask 0x...'"
                    if not skip_bad:
                        found = line[:40].decode(errors="replace").rstrip()
                        raise UsageError(f"{name}: line {number}: expected {expected}, found {found!r}")
                    bad += 1
                first = _FIRST.match(line)
    except OSError as error:
        raise UsageError(f"{name}: {error.strerror}") from None
    return ledger, bad


def history(path: str | os.PathLike[str]) -> Ledger:
    """What a page_owner dump or a trace says of pages' past; raises UsageError."""
    if is_page_owner(path):
        return read(path)[0]
    ledger = Ledger()
    ledger.read(TraceFile(path))
    return ledger
