# SPDX-License-Identifier: GPL-2.0-only
"""What an explanation is made of: plain data, which goes to JSON and comes back the same."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

__all__ = ["Call", "Change", "Explanation", "Line", "Operation"]


@dataclass(slots=True)
class Change:
    """A word of memory that was written.

    :ivar what: the structure that it is part of: ``pfn 27520``, ``node 0 zone DMA32``
    :ivar field: which field of it
    :ivar kind: of structure: ``page``, ``zone``, ``pageset``, ``counter``, ``contents``, ``other``
    :ivar pfn: of the page, if it is one
    :ivar before: the value, for people
    :ivar raw: physical address, size in bytes, value before and after
    """

    what: str
    field: str
    kind: str
    pfn: int | None
    before: str
    after: str
    raw: tuple[int, int, int, int]

    @property
    def is_link(self) -> bool:
        """Whether it is a link of a list."""
        return self.field.endswith((".next", ".prev"))

    def __str__(self) -> str:
        return f"{self.what} {self.field}: {self.before} -> {self.after}".replace(" :", ":")


@dataclass(slots=True)
class Line:
    """A statement that was executed.

    :ivar number: its line in the file
    :ivar source: its text there
    :ivar code: what it works out, for people: without types and module names
    :ivar worked: the same with values in the place of names, and the result; empty if there is nothing to tell
    :ivar kind: ``decision``, ``value``, ``return``, ``loop`` or ``other``
    :ivar decisive: whether it tells why the path went where it did, or how a number came about
    :ivar comment: what the source says about it
    :ivar parts: the calls that it made and the words that it wrote, in order
    """

    number: int
    source: str
    code: str
    worked: str
    kind: str
    decisive: bool
    comment: str
    parts: list[Call | Change] = field(default_factory=list)


@dataclass(slots=True)
class Call:
    """A function that ran.

    :ivar function: its name in the source
    :ivar kernel: its name in the kernel
    :ivar detail: whether it is a mere accessor
    :ivar arguments: name and value of each that says something
    :ivar result: what it returned, None for nothing
    :ivar raised: whether it ended by an error
    """

    function: str
    kernel: str
    module: str
    file: str
    line: int
    about: str
    detail: bool
    arguments: list[tuple[str, str]]
    result: str | None
    raised: bool
    lines: list[Line] = field(default_factory=list)

    def calls(self) -> Iterator[Call]:
        """The calls that it made itself."""
        for line in self.lines:
            for part in line.parts:
                if isinstance(part, Call):
                    yield part

    def walk(self, depth: int = 0) -> Iterator[tuple[int, Call]]:
        """This call and all below it, in the order in which they began; with how deep they are."""
        yield depth, self
        for call in self.calls():
            yield from call.walk(depth + 1)

    def changes(self) -> Iterator[Change]:
        """Every word written, in order."""
        for line in self.lines:
            for part in line.parts:
                if isinstance(part, Change):
                    yield part
                else:
                    yield from part.changes()


@dataclass(slots=True)
class Operation:
    """One operation that was asked for, and what came of it.

    :ivar text: as it was asked for
    :ivar call: the same as a call in C
    :ivar result: what it returned, for people
    :ivar error: what stopped it, if something did
    :ivar printed: what the kernel printed
    :ivar events: its tracepoints
    """

    text: str
    call: str
    result: str | None = None
    error: str | None = None
    printed: list[str] = field(default_factory=list)
    events: list[str] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)

    def functions(self, detail: bool = False) -> Iterator[str]:
        """Names of the functions that ran, in order.

        :param detail: mere accessors too
        """
        for call in self.calls:
            yield from (each.function for _, each in call.walk() if detail or not each.detail)

    def changes(self) -> Iterator[Change]:
        """Every word written, in order."""
        for call in self.calls:
            yield from call.changes()

    def net_changes(self) -> list[Change]:
        """What is different afterwards: of each word the first value and the last."""
        words: dict[tuple[int, int], Change] = {}
        for change in self.changes():
            key = change.raw[0], change.raw[1]
            first = words.get(key)
            if first is None:
                words[key] = change
            else:
                raw = (*key, first.raw[2], change.raw[3])
                words[key] = Change(change.what, change.field, change.kind, change.pfn, first.before, change.after, raw)
        return [change for change in words.values() if change.raw[2] != change.raw[3]]


@dataclass(slots=True)
class Explanation:
    """What some operations did to a machine, and how.

    :ivar image: name of the memory image
    :ivar kernel: its release
    :ivar missed: function calls that are left out because there were too many
    """

    image: str
    kernel: str
    operations: list[Operation] = field(default_factory=list)
    missed: int = 0

    @property
    def failed(self) -> bool:
        """Whether an operation was stopped by an error."""
        return any(operation.error is not None for operation in self.operations)

    def to_json(self) -> dict[str, Any]:
        """Objects, lists, strings and numbers."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Explanation:
        """What :meth:`to_json` gave."""
        operations = [
            Operation(**{**each, "calls": [_call(call) for call in each["calls"]]}) for each in data["operations"]
        ]
        return cls(data["image"], data["kernel"], operations, data["missed"])

    def __str__(self) -> str:
        from kernelmm.study.explain_text import text

        return "\n".join(text(self))

    def __repr__(self) -> str:
        return f"<Explanation: {'; '.join(operation.text for operation in self.operations)}>"

    def _repr_html_(self) -> str:
        from kernelmm.study.explain_html import fragment

        return fragment(self)


def _call(data: dict[str, Any]) -> Call:
    lines = [Line(**{**line, "parts": [_part(part) for part in line["parts"]]}) for line in data["lines"]]
    arguments = [(name, value) for name, value in data["arguments"]]
    return Call(**{**data, "lines": lines, "arguments": arguments})


def _part(data: dict[str, Any]) -> Call | Change:
    if "lines" in data:
        return _call(data)
    return Change(**{**data, "raw": tuple(data["raw"])})
