# SPDX-License-Identifier: GPL-2.0-only
"""An explanation as text, in four levels of detail.

0. which functions ran, in order, and the result;
1. also the decisions and numbers that made the path what it is, and what was different afterwards;
2. also every statement with its comment, and every word as it was written;
3. also the accessors: how a page is found, how a bit is set.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator

from kernelmm.study.explain_model import Call, Change, Explanation, Line, Operation

__all__ = ["DETAILS", "call_lines", "text"]

#: The highest level of detail.
DETAILS = 3
_WIDTH = 118


def text(explanation: Explanation, detail: int = 1) -> Iterator[str]:
    """The lines of an explanation."""
    for number, operation in enumerate(explanation.operations):
        if number:
            yield ""
        yield from _operation(operation, detail)
    if explanation.missed:
        yield f"({explanation.missed} function calls more: too many to tell)"


def _operation(operation: Operation, detail: int) -> Iterator[str]:
    yield operation.call
    for call in operation.calls:
        yield from _call(call, 1, detail)
    if operation.events:
        yield "tracepoints"
        yield from (f"  {event}" for event in operation.events)
    if operation.printed:
        yield "the kernel prints"
        yield from (f"  {line}" for line in operation.printed)
    if detail:
        yield from _different(operation, detail)
    if operation.error is not None:
        yield f"stopped: {operation.error}"
    elif operation.result is not None:
        yield f"returns {operation.result}"


def call_lines(calls: Iterable[Call], detail: int = 1) -> Iterator[str]:
    """The lines of some calls."""
    for call in calls:
        yield from _call(call, 0, detail)


# -- the path ---------------------------------------------------------------------


def _call(call: Call, depth: int, detail: int, times: int = 1) -> Iterator[str]:
    """A function and what it did; what is not shown passes its own calls on."""
    if call.detail and detail < DETAILS:
        yield from _body(call, depth, detail, decide=False)
        return
    yield "  " * depth + _heading(call, detail) + (f"  x {times}" if times > 1 else "")
    if detail >= 2 and call.about:
        yield "  " * (depth + 1) + f'"{call.about}" {call.file}:{call.line}'
    yield from _body(call, depth + 1, detail, decide=True)


def _heading(call: Call, detail: int) -> str:
    if not detail:
        return call.kernel
    arguments = ", ".join(f"{name} {value}" for name, value in call.arguments)
    if call.raised:
        result = " stops"
    else:
        result = "" if call.result is None else f" = {call.result}"
    return f"{call.kernel}({arguments}){result}"


def _body(call: Call, depth: int, detail: int, decide: bool) -> Iterator[str]:
    """What a function did.  The like calls of a loop are told once, unless every statement is told."""
    pending: tuple[Call, list[str], int] | None = None
    for line in call.lines:
        statement = list(_statement(line, depth, detail)) if decide else []
        if detail >= 2:
            yield from statement
        for part in line.parts:
            if isinstance(part, Change):
                if detail >= 2:
                    yield "  " * (depth + 1) + f"* {part}"
                continue
            told = list(_part(part, depth, detail))
            if not told:
                continue
            if pending and detail < 2 and _alike(pending[0], part):
                pending = pending[0], pending[1], pending[2] + 1
                continue
            yield from _repeated(pending)
            pending = part, told, 1
            if detail >= 2:
                yield from _repeated(pending)
                pending = None
        if detail < 2 and statement:
            yield from _repeated(pending)
            pending = None
            yield from statement
    yield from _repeated(pending)


def _repeated(pending: tuple[Call, list[str], int] | None) -> Iterator[str]:
    if pending is None:
        return
    _, lines, times = pending
    more = f"  (and {times - 1} more like this)" if times > 1 else ""
    yield lines[0] + more
    yield from lines[1:]


def _alike(one: Call, other: Call) -> bool:
    """Whether two calls in a row took the same path: one of them tells it all."""
    return (
        one.function == other.function
        and one.result == other.result
        and [line.number for line in one.lines] == [line.number for line in other.lines]
        and [call.function for _, call in one.walk()] == [call.function for _, call in other.walk()]
    )


def _part(call: Call, depth: int, detail: int) -> Iterator[str]:
    """A call inside a statement; operations on lists are told in a line."""
    if 0 < detail < DETAILS and call.module == "physmem.list_head" and any(call.changes()):
        arguments = ", ".join(value for _, value in call.arguments)
        yield "  " * depth + f"{call.kernel}({arguments})"
        if detail >= 2:
            yield from ("  " * (depth + 1) + f"* {change}" for change in call.changes())
        return
    if call.detail and detail == 2:
        yield from ("  " * (depth + 1) + f"* {change}" for change in call.changes())
        return
    yield from _call(call, depth, detail)


def _statement(line: Line, depth: int, detail: int) -> Iterator[str]:
    if detail == 0 or (detail == 1 and not (line.decisive and line.worked)):
        return
    if detail >= 2 and line.comment:
        yield "  " * depth + f"# {line.comment}"
    code = line.code or line.source
    if line.kind == "return":
        code = code.removeprefix("return ") if line.worked else code
        yield "  " * depth + (
            f"return {code}: {line.worked}" if line.worked and line.worked != code else f"return {code}"
        )
    elif not line.worked:
        yield "  " * depth + code
    elif line.kind == "decision":
        yield "  " * depth + f"{code}? {line.worked}"
    elif line.kind == "loop":
        yield "  " * depth + f"for {code}: {line.worked}"
    else:
        yield "  " * depth + f"{code}: {line.worked}"


# -- what it changed ----------------------------------------------------------------


def _different(operation: Operation, detail: int) -> Iterator[str]:
    changes = [change for change in operation.net_changes() if detail >= 2 or not change.is_link]
    if not changes:
        return
    yield "different afterwards" + ("" if detail >= 2 else " (links of lists aside)")
    by: dict[str, list[str]] = {}
    for change in changes:
        by.setdefault(change.what, []).append(f"{change.field} {change.before} -> {change.after}".strip())
    for what, fields in by.items():
        yield from textwrap.wrap(
            f"{what}: {', '.join(fields)}",
            _WIDTH,
            initial_indent="  ",
            subsequent_indent="    ",
            break_on_hyphens=False,
        )
