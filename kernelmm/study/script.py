# SPDX-License-Identifier: GPL-2.0-only
"""Page scripts: allocator operations as text, one a line, and their results.

======================  ================================================================================
``a id nid order gfp``  alloc_pages_node (gfp in hex; nid -1 is the CPU's node); the page is ``id`` from now on
``f id order``          __free_pages
``F id order``          free_pages(page_address)
``c id``                put_page_testzero, then free_hot_cold_page(cold=1)
``B id``                free_hot_cold_page without dropping _count: a bad page
``g id`` ``p id``       get_page, put_page
``G id k`` ``P id k``   the same for the k-th page of id's block
``S id order newid``    split_page; the pages become ids newid, newid + 1, ...
``x id k field value``  write to page k: ``m`` _mapcount, ``c`` _count, ``p`` mapping, ``s`` ``z`` set, clear flags
``n zoneidx delta``     add to NR_PAGES_SCANNED of a zone of node 0
``d`` ``D``             drain_local_pages, drain_all_pages
``i start end``         start_isolate_page_range of PFNs, as MIGRATE_MOVABLE; ``u``: undo_isolate_page_range
``L id start end mt``   alloc_contig_range; ``R id off n``: free_contig_range of n of its pages, from the off-th
``M``                   make a file: three pages are taken for what is known of it
``C id index``          add_to_page_cache_lru of a single page, to the file, clean: the reference is the cache's now
``t flags``             PF_* of the running task, in hex: PF_KTHREAD, PF_MEMALLOC, PF_MEMALLOC_NOIO, PF_DUMPCORE
``k`` and 7 numbers     set fail_page_alloc: probability interval times space min_order ignore_wait ignore_highmem
``T cpu`` ``I`` ``W``   run on a CPU; interrupts on; warm-up; ``K``: a ``k`` before the image (no result lines)
``#``                   a comment
======================  ================================================================================

A result line is ``code pfn order migratetype count``: the migratetype of the PFN's pageblock and
page_count after the operation; -1 where there is no page.  An operation on an id whose
allocation failed does nothing and has -1 too.  For a range the PFN is its start and the count
what the function returned; ``L`` has its migratetype in place of the order, ``n`` its zone, ``k`` min_order;
``M`` is about the last of its pages.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from physmem import abi
from physmem.errors import UsageError

__all__ = ["Script", "format_results", "parse", "parse_results"]

#: A script longer than this is not read: 40 bytes an operation would be 40 GiB of numbers.
MAX_OPERATIONS = 1 << 30
MAX_IDS = 1 << 28
#: Pages that the file of ``M`` can have.
FILE_PAGES = 512

#: For each operation: what its words are.
_GRAMMAR: dict[str, tuple[str, ...]] = {
    "a": ("newid", "nid", "wanted", "gfp"),
    "f": ("id", "order"),
    "F": ("id", "order"),
    "c": ("id",),
    "B": ("id",),
    "g": ("id",),
    "p": ("id",),
    "G": ("id", "k"),
    "P": ("id", "k"),
    "S": ("id", "order", "newid"),
    "x": ("id", "k", "field", "value"),
    "n": ("zoneidx", "delta"),
    "d": (),
    "D": (),
    "i": ("start", "end"),
    "u": ("start", "end"),
    "L": ("newid", "start", "end", "mt"),
    "R": ("id", "off", "n"),
    "M": (),
    "C": ("id", "index"),
    "t": ("flags",),
    "k": ("probability", "interval", "times", "space", "min_order", "ignore_wait", "ignore_highmem"),
    "K": ("probability", "interval", "times", "space", "min_order", "ignore_wait", "ignore_highmem"),
    "T": ("cpu",),
    "I": (),
    "W": (),
}
#: Operations that print no result line.
_SILENT = frozenset("TIWK")
#: Operations that change nothing here: interrupts do not happen, and the image was taken after the warm-up.
_IGNORED = frozenset("IWK")
#: Operations on ranges and attributes: not the replay loop's, but :mod:`kernelmm.study.ranges`'.
_RARE = frozenset("iuLRkMCt")
#: Highest PFN that 46 bits of physical address allow.
_MAX_PFN = 1 << 34


@dataclass(frozen=True)
class Script:
    """A parsed script.

    :ivar name: where it came from
    :ivar ops: ``int64[n][5]``: code, id, a, b, c (:mod:`kernelmm.core.replay`)
    :ivar lines: line number of each operation
    :ivar nr_ids: one more than the highest id
    :ivar faults: the seven numbers of each ``k``, whose ``a`` is an index into this
    """

    name: str
    ops: npt.NDArray[np.int64]
    lines: npt.NDArray[np.int64]
    nr_ids: int
    faults: tuple[tuple[int, ...], ...] = ()

    def __len__(self) -> int:
        return len(self.ops)


class _Parser:
    """Turns words into numbers, and knows which ids exist."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.line = 0
        self.known: set[int] = set()
        self.nr_ids = 0
        self.has_file = False
        self.faults: list[tuple[int, ...]] = []

    def fail(self, reason: str) -> UsageError:
        return UsageError(f"{self.name}: line {self.line}: {reason}")

    def number(self, word: str, what: str, base: int, low: int, high: int) -> int:
        try:
            value = int(word, base)
        except ValueError:
            raise self.fail(f"{what} {word!r} is not a number") from None
        if not low <= value <= high:
            raise self.fail(f"{what} {word} is not between {low} and {high}")
        return value

    def define(self, first: int, count: int) -> None:
        if first + count > MAX_IDS:
            raise self.fail(f"id {first + count - 1} is above {MAX_IDS - 1}")
        self.known.update(range(first, first + count))
        self.nr_ids = max(self.nr_ids, first + count)

    def operation(self, words: list[str]) -> tuple[int, int, int, int, int] | None:
        """The numbers of one line; None if it does nothing."""
        code, arguments = words[0], words[1:]
        grammar = _GRAMMAR.get(code)
        if grammar is None:
            raise self.fail(f"unknown operation {code!r}")
        if len(arguments) != len(grammar):
            form = " ".join((code, *grammar)).replace("wanted", "order")
            raise self.fail(f"expected '{form}', found {len(arguments)} arguments")
        if code in _IGNORED:
            return None
        given = dict(zip(grammar, arguments, strict=True))
        value = {name: self.argument(name, word) for name, word in given.items() if name not in ("field", "value")}
        ident = value.get("id", -1)
        if "id" in value and ident not in self.known:
            raise self.fail(f"unknown id {ident}: nothing was allocated under it")
        if code == "a":
            self.define(value["newid"], 1)
            return ord(code), value["newid"], value["nid"], value["wanted"], value["gfp"]
        if code == "S":
            self.define(value["newid"], 1 << value["order"])
            return ord(code), ident, value["order"], value["newid"], 0
        if code == "x":
            return ord(code), ident, value["k"], *self.field(given["field"], given["value"])
        if code == "n":
            return ord(code), -1, value["zoneidx"], value["delta"], 0
        if code in "iu":
            return ord(code), -1, value["start"], value["end"], 0
        if code == "L":
            self.define(value["newid"], 1)
            return ord(code), value["newid"], value["start"], value["end"], value["mt"]
        if code == "R":
            return ord(code), ident, value["off"], value["n"], 0
        if code in "MC" and (code == "M") == self.has_file:
            raise self.fail("there is one file in a script" if code == "M" else "there is no file: M makes it")
        if code in "MCt":
            self.has_file |= code == "M"
            return ord(code), ident, value.get("index", value.get("flags", 0)), 0, 0
        if code == "k":
            self.faults.append(tuple(value.values()))
            return ord(code), -1, len(self.faults) - 1, 0, 0
        return ord(code), ident, value.get("order", value.get("k", value.get("cpu", 0))), 0, 0

    def argument(self, name: str, word: str) -> int:
        """One argument, within the bounds of its kind."""
        if name in ("id", "newid"):
            return self.number(word, name, 10, 0, MAX_IDS - 1)
        if name == "nid":
            return self.number(word, name, 10, -1, 63)
        if name == "order":
            return self.number(word, name, 10, 0, abi.MAX_ORDER - 1)
        if name == "wanted":
            # One too many is asked for in earnest: the kernel has a path for it.
            return self.number(word, "order", 10, 0, abi.MAX_ORDER)
        if name == "gfp":
            return self.number(word, name, 16, 0, 0xFFFFFFFF)
        if name == "k":
            return self.number(word, name, 10, 0, (1 << abi.MAX_ORDER) - 1)
        if name == "cpu":
            return self.number(word, name, 10, 0, 8191)
        if name == "zoneidx":
            return self.number(word, name, 10, 0, 3)
        if name in ("start", "end", "off", "n"):
            return self.number(word, name, 10, 0, _MAX_PFN)
        if name == "index":
            return self.number(word, name, 10, 0, FILE_PAGES - 1)
        if name == "flags":
            return self.number(word, name, 16, 0, 0xFFFFFFFF)
        if name == "mt":
            return self.number(word, name, 10, 0, 7)
        return self.number(word, name, 10, -(1 << 31), (1 << 31) - 1)

    def field(self, field: str, word: str) -> tuple[int, int]:
        """The last two arguments of ``x``: the field's letter, and the value as a signed 64-bit number."""
        if field not in ("m", "c", "p", "s", "z"):
            raise self.fail(f"unknown field {field!r}: one of m c p s z")
        if field in "mc":
            return ord(field), self.number(word, "value", 10, -(1 << 31), (1 << 31) - 1)
        value = self.number(word, "value", 16, 0, (1 << 64) - 1)
        return ord(field), value - (1 << 64) if value >> 63 else value


def parse(lines: Iterable[str], name: str) -> Script:
    """Parse a script.

    :param name: what to call it in messages
    :raises UsageError: with the line number: an unknown operation, wrong arguments, an id that was never allocated
    """
    parser = _Parser(name)
    ops: list[tuple[int, int, int, int, int]] = []
    numbers: list[int] = []
    for parser.line, line in enumerate(lines, 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        operation = parser.operation(words)
        if operation is not None:
            if len(ops) >= MAX_OPERATIONS:
                raise parser.fail(f"more than {MAX_OPERATIONS} operations")
            ops.append(operation)
            numbers.append(parser.line)
    return Script(
        name,
        np.array(ops, np.int64).reshape(len(ops), 5),
        np.array(numbers, np.int64),
        max(parser.nr_ids, 1),
        tuple(parser.faults),
    )


def load(path: str | os.PathLike[str]) -> Script:
    """Parse the script in a file; raises UsageError if it cannot be read."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return parse(file, os.fspath(path))
    except OSError as error:
        raise UsageError(f"{os.fspath(path)}: {error.strerror}") from None


def rare(script: Script) -> npt.NDArray[np.intp]:
    """Positions of the operations that are not the replay loop's."""
    return np.flatnonzero(np.isin(script.ops[:, 0], [ord(code) for code in _RARE]))


def has_result(code: int) -> bool:
    """Whether an operation has a result line."""
    return chr(code) not in _SILENT


def format_results(script: Script, results: npt.NDArray[np.int64], count: int | None = None) -> Iterator[str]:
    """The result lines (without newlines) of the first ``count`` operations."""
    codes = script.ops[:count, 0].tolist()
    for code, (pfn, order, migratetype, pages) in zip(codes, results[:count].tolist(), strict=True):
        if has_result(code):
            yield f"{chr(code)} {pfn} {order} {migratetype} {pages}"


def parse_results(path: str | os.PathLike[str]) -> list[str]:
    """The lines of a result file, white space normalised; raises UsageError if it cannot be read."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            lines = [" ".join(line.split()) for line in file]
    except OSError as error:
        raise UsageError(f"{os.fspath(path)}: {error.strerror}") from None
    while lines and not lines[-1]:
        lines.pop()
    return lines


def run_numbers(script: Script) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.int64]]:
    """Fresh ``pages`` and ``results`` arrays for :func:`kernelmm.core.replay.replay`."""
    return np.zeros(script.nr_ids, np.uint64), np.zeros((len(script), 4), np.int64)
