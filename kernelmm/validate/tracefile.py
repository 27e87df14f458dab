# SPDX-License-Identifier: GPL-2.0-only
"""Traces of kmem events as text: what ftrace, ``trace-cmd report`` and ``perf script`` print.

Kernels of all ages are read: PFNs in decimal or hexadecimal, page pointers plain, hashed or NULL, four or five
flags before the time or none, the latency format, both spellings of ``gfp_flags``.  A line is one of

* an event of :data:`EVENTS`;
* another event, a comment, an empty line: passed over;
* a note that events were lost;
* anything else: malformed.

A file is read in pieces, each by one regular expression over bytes, so that a large one takes little memory.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import BinaryIO, NamedTuple

from physmem.errors import UsageError

__all__ = ["EVENTS", "Line", "TraceFile", "named", "opened"]

#: The events that are understood, and what their lines look like.
EVENTS = {
    "mm_page_alloc": "page=PAGE pfn=PFN order=N migratetype=N gfp_flags=NAMES",
    "mm_page_free": "page=PAGE pfn=PFN order=N",
    "mm_page_free_batched": "page=PAGE pfn=PFN order=0 cold=N",
    "mm_page_alloc_zone_locked": "page=PAGE pfn=PFN order=N migratetype=N percpu_refill=N",
    "mm_page_pcpu_drain": "page=PAGE pfn=PFN order=N migratetype=N",
    "mm_page_alloc_extfrag": "page=PAGE pfn=PFN alloc_order=N fallback_order=N ...",
}
_LINE = "a line like 'TASK-PID [CPU] flags SECONDS: EVENT: FIELDS'"

#: Bytes read at a time.
_CHUNK = 1 << 22
#: No line of a trace is longer.
_MAX_LINE = 1 << 16

_TASK = rb"(\S[^\n]{0,31}?[- ] *\d+)"
_HEAD = rb"^ *" + _TASK + rb" +(?:\([^)\n]*\) +)?(\[\d+\] [^\n:]*): +(?:kmem:)?"
_FIELDS = (
    rb"page=[^ \n]+|page= +\(null\)",
    rb"pfn=(\d+|0x[0-9a-fA-F]+) order=(\d+)"
    rb"(?: migratetype=-?\d+(?: gfp_flags=(\S+)| percpu_refill=\d|)| cold=\d|)(?: compound=\d)?[ \r]*$",
)
_KMEM = _HEAD + rb"mm_page_(\w+): +(?:" + _FIELDS[0] + rb") +" + _FIELDS[1]
#: Six groups for an event (task; CPU, flags and time; event, PFN, order, gfp_flags), or one for any other line.
_ANY = re.compile(_KMEM + rb"|^([^\n]*)$", re.MULTILINE)
_OTHER = re.compile(_HEAD + rb"(?:[\w]+:)?([\w.]+)(?:: ?(.*)|\(.*)$")
_LATENCY = re.compile(rb"^ *(\S.{0,20}?-\d+) +\d+[a-zA-Z.#0-9]{4,6} +(\d+)us[^:]*: +(?:kmem:)?(\w+): ?(.*)$")
_LOST = re.compile(rb"^\s*(?:CPU:\s*\d+ )?\[(?:LOST )?(?:\d+ )?EVENTS(?: DROPPED)?\]|^.*\bLost \d+ events")
_PASSED = re.compile(rb"^\s*(?:#.*|cpus=\d+|CPU \d+ is empty|version = \d+|=> .*|)\s*$")
#: A stack below an event: a line of ftrace's that begins it, and lines of perf's.
_STACK = re.compile(rb"^.*: <(?:user )?stack trace>\s*$|^\s+[0-9a-f]{8,16} \S.*$")
_ENTRIES = re.compile(rb"^# entries-in-buffer/entries-written: (\d+)/\d+")


#: The groups of a line that is passed over.
_NOTHING = (b"",) * 7


class Line(NamedTuple):
    """A line of a trace that tells something.

    :ivar number: from 1 on
    :ivar event: without ``mm_page_``: ``alloc``, ``free``, ...; ``lost``; else another event's name
    :ivar task: name and id, as the file has them
    :ivar when: what comes before the event's name: CPU, flags and time
    :ivar pfn: 0 for an allocation that failed
    :ivar gfp: of an allocation, as text
    """

    number: int
    event: str
    task: str = ""
    when: str = ""
    pfn: int = 0
    order: int = 0
    gfp: str = ""


def opened(path: str) -> AbstractContextManager[BinaryIO]:
    """A file to read, or standard input for ``-``."""
    return nullcontext(sys.stdin.buffer) if path == "-" else open(path, "rb")


def named(path: str) -> str:
    """What to call it."""
    return "standard input" if path == "-" else path


class TraceFile:
    """A trace, read line by line.

    :param path: a file, or ``-`` for standard input
    :param skip_bad: count malformed lines and go on
    :param progress: called with the bytes of each piece that was read
    :param since: events before this time, in seconds, are passed over
    :param until: and those after it
    :ivar bad: malformed lines so far
    :ivar lines: lines so far
    :ivar silent: lines so far that are no entries of the buffer: comments, lost events, stacks; not empty lines
    :ivar header: the line with the number of entries, by its header; 0 if it has none
    :ivar entries: that number; of several headers, the sum
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        skip_bad: bool = False,
        progress: Callable[[int], None] | None = None,
        since: float | None = None,
        until: float | None = None,
    ) -> None:
        self.path = os.fspath(path)
        self.skip_bad = skip_bad
        self.bad = 0
        self.lines = self.silent = self.header = self.entries = 0
        self._progress = progress
        self._span = None if since is None and until is None else (since or 0.0, until)

    @property
    def is_whole(self) -> bool:
        """Whether all events are asked for."""
        return self._span is None

    def batches(self) -> Iterator[tuple[int, list[tuple[bytes, ...]]]]:
        """The file in pieces: number of the first line, and for each line the groups of :data:`_ANY`.

        :raises UsageError: it cannot be read
        """
        try:
            with opened(self.path) as file:
                for piece in self._pieces(file):
                    found = _ANY.findall(piece)
                    if self._span is not None:
                        found = [groups if not groups[2] or self._inside(groups[1]) else _NOTHING for groups in found]
                    yield self.lines + 1, found
                    self.lines += len(found)
        except OSError as error:
            raise UsageError(f"{named(self.path)}: {error.strerror}") from None

    def _inside(self, when: bytes) -> bool:
        """Whether an event is among those that are asked for."""
        since, until = self._span or (0.0, None)
        try:
            time = float(when.rpartition(b" ")[2])
        except ValueError:
            return True
        return since <= time and (until is None or time <= until)

    def _pieces(self, file: BinaryIO) -> Iterator[bytes]:
        """Whole lines, without the last newline."""
        rest = b""
        while data := file.read(_CHUNK):
            if self._progress is not None:
                self._progress(len(data))
            piece, newline, after = data.rpartition(b"\n")
            if newline:
                yield rest + piece
                rest = after
            else:
                rest += data
            if len(rest) > _MAX_LINE:
                raise UsageError(f"{named(self.path)}: not a trace: a line of more than {_MAX_LINE} bytes")
        if rest:
            yield rest

    def other(self, number: int, text: bytes) -> Line | None:
        """What a line says that is not an event in the usual form; None if nothing.

        :raises UsageError: it is malformed, and that is not to be skipped; with its number and what was expected
        """
        if _PASSED.match(text):
            self.silent += 1
            entries = _ENTRIES.match(text)
            if entries:
                self.header, self.entries = number, self.entries + int(entries[1])
            return None
        if _LOST.match(text):
            self.silent += 1
            return Line(number, "lost")
        if _STACK.match(text):
            self.silent += b"stack trace>" not in text
            return None
        match = _OTHER.match(text.rstrip())
        if match:
            event = match[3].decode(errors="replace")
            if event not in EVENTS:
                return Line(number, event)
            if event == "mm_page_alloc_extfrag":
                return None
            self._malformed(number, f"{event}: {EVENTS[event]}", text)
            return None
        latency = _LATENCY.match(text.rstrip())
        if latency:
            return self._latency(number, text, latency)
        self._malformed(number, _LINE, text)
        return None

    def _latency(self, number: int, text: bytes, match: re.Match[bytes]) -> Line | None:
        """A line of the latency format: brought into the usual form, and read as that."""
        task, micros, event, fields = match.groups()
        seconds = b"%d.%06d" % divmod(int(micros), 1_000_000)
        usual = _ANY.match(b"%s [000] %s: %s: %s" % (task, seconds, event, fields))
        if usual and usual[3]:
            return self.event(number, usual.groups(default=b""))
        name = event.decode(errors="replace")
        if name in EVENTS and name != "mm_page_alloc_extfrag":
            self._malformed(number, f"{name}: {EVENTS[name]}", text)
            return None
        return Line(number, name)

    def event(self, number: int, groups: tuple[bytes, ...]) -> Line:
        """The six groups of an event as a line."""
        task, when, event, pfn, order, gfp = groups[:6]
        text = task.decode(errors="replace"), when.decode(errors="replace")
        return Line(number, event.decode(), *text, int(pfn, 0), int(order), gfp.decode(errors="replace"))

    def events(self) -> Iterator[Line]:
        """Every line that tells something; raises UsageError."""
        for first, batch in self.batches():
            for number, groups in enumerate(batch, first):
                line = self.event(number, groups) if groups[2] else self.other(number, groups[6])
                if line is not None:
                    yield line

    def _malformed(self, number: int, expected: str, text: bytes) -> None:
        if not self.skip_bad:
            shown = text[:60].decode(errors="replace")
            raise UsageError(f"{named(self.path)}: line {number}: expected {expected}, found {shown!r}")
        self.bad += 1
