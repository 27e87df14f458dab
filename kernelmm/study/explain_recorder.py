# SPDX-License-Identifier: GPL-2.0-only
"""A call watched as it runs: every function, every statement, every word written.

The interpreter's trace function tells of calls and lines; views of memory that take notes tell
of reads and writes.  Nothing here knows what the allocator does.
"""

from __future__ import annotations

import inspect
import sys
from collections import ChainMap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

from kernelmm.core.mm import Mm
from kernelmm.study import explain_source
from kernelmm.study.explain_source import Function
from physmem import engine
from physmem.errors import UsageError

__all__ = ["Execution", "Invocation", "Recorder", "Stored"]

#: Rooms whose functions are shown; the last three only while one of the others is under way.
_ROOMS = ("kernelmm.core.", "kernelmm.pressure.")
_FLOOR = ("physmem.address", "physmem.word", "physmem.list_head")
#: What watches the allocator is no part of its path, though it may use its accessors.
_WATCHERS = ("kernelmm.study.",)
_GENERATOR = inspect.CO_GENERATOR
_VIEWS = (("as_u8", 1), ("as_s8", 1), ("as_u32", 4), ("as_s32", 4), ("as_u64", 8), ("as_s64", 8))
#: Statements that are kept at most; a call that runs longer is told without the rest of them.
LIMIT = 100_000


@dataclass(slots=True)
class Stored:
    """A word written.

    :ivar phys: physical address
    :ivar before: value, unsigned; bytes if a whole range was written at once
    """

    phys: int
    size: int
    before: int | bytes
    after: int | bytes


@dataclass(slots=True)
class Execution:
    """One execution of one statement.

    :ivar line: of its beginning
    :ivar names: the variables before it, and what else its names mean
    :ivar after: the variables after it
    :ivar reads: words that it read from memory
    :ivar parts: the calls that it made and the words that it wrote, in order
    :ivar next_line: line of the statement that came next in the function, 0 if it returned
    """

    line: int
    names: ChainMap[str, Any]
    after: dict[str, Any] = field(default_factory=dict)
    reads: list[int] = field(default_factory=list)
    parts: list[Invocation | Stored] = field(default_factory=list)
    next_line: int = 0


@dataclass(slots=True)
class Invocation:
    """One call of one function.

    :ivar arguments: by name
    :ivar result: what it returned
    :ivar raised: whether it ended by an exception
    """

    function: Function
    module: str
    arguments: dict[str, Any]
    executions: list[Execution] = field(default_factory=list)
    result: Any = None
    raised: bool = True


class _View:
    """A view of memory that takes notes."""

    __slots__ = ("_recorder", "_size", "_view")

    def __init__(self, view: memoryview, size: int, recorder: Recorder) -> None:
        self._view = view
        self._size = size
        self._recorder = recorder

    def __len__(self) -> int:
        return len(self._view)

    def __getitem__(self, index: Any) -> Any:
        value = self._view[index]
        self._recorder.read(value)
        return value

    def __setitem__(self, index: Any, value: Any) -> None:
        if isinstance(index, slice):
            start = index.indices(len(self._view))[0] * self._size
            before = bytes(self._view[index])
            self._view[index] = value
            self._recorder.wrote(Stored(start, len(before), before, bytes(self._view[index])))
            return
        old = self._view[index]
        self._view[index] = value
        mask = (1 << 8 * self._size) - 1
        self._recorder.wrote(Stored(index * self._size, self._size, old & mask, self._view[index] & mask))


class Recorder:
    """Watches calls into the allocator of one machine.

    :ivar calls: the outermost calls, in order
    :ivar statements: how many were recorded
    :ivar missed: how many came after the limit
    :raises UsageError: the engine is compiled: nothing can watch that
    """

    def __init__(self, mm: Mm) -> None:
        if engine.current() != "interpreted":
            raise UsageError("only the interpreted engine can be watched")
        self._mm = mm
        self.calls: list[Invocation] = []
        self.statements = 0
        self.missed = 0
        self._under_way: list[tuple[Invocation, Execution]] = []
        self._muted = 0

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Watch for a while; does not nest with another tracer's (a debugger's) work."""
        mm, ram = self._mm, self._mm.ram
        views = {name: getattr(mm, name) for name, _ in _VIEWS}
        for name, size in _VIEWS:
            setattr(mm, name, _View(views[name], size, self))
        for name in ("write", "clear"):
            setattr(ram, name, self._ranges(getattr(ram, name)))
        before = sys.gettrace()
        sys.settrace(self._call)
        try:
            yield
        finally:
            sys.settrace(before)
            del ram.write, ram.clear
            for name, view in views.items():
                setattr(mm, name, view)
            self._under_way.clear()

    # -- memory ------------------------------------------------------------------

    def read(self, value: Any) -> None:
        """The statement under way has read a word."""
        if self._under_way and not self._muted:
            self._under_way[-1][1].reads.append(value)

    def wrote(self, stored: Stored) -> None:
        """The statement under way has written."""
        if self._under_way:
            self._under_way[-1][1].parts.append(stored)

    def _ranges(self, method: Callable[[int, Any], None]) -> Callable[[int, Any], None]:
        """A method that writes a range of memory, taking notes of what changed."""
        ram = self._mm.ram

        def noted(phys: int, what: Any) -> None:
            size = what if isinstance(what, int) else len(what)
            before = bytes(ram.as_u8[phys : phys + size])
            method(phys, what)
            self.wrote(Stored(phys, size, before, bytes(ram.as_u8[phys : phys + size])))

        return noted

    # -- the interpreter -----------------------------------------------------------

    def _call(self, frame: FrameType, event: str, argument: Any) -> Callable[..., Any] | None:
        """A function begins."""
        module = frame.f_globals.get("__name__", "")
        if module == __name__:
            return None
        if module.startswith(_WATCHERS):
            if not self._under_way:
                return None
            self._muted += 1
            return self._watcher
        if self._muted or not module.startswith(_ROOMS if not self._under_way else _ROOMS + _FLOOR):
            return None
        code = frame.f_code
        if code.co_flags & _GENERATOR or code.co_name.startswith("<") or not code.co_filename.endswith(".py"):
            # Parts of the statement that they are in.
            return None
        if self.statements >= LIMIT:
            self.missed += 1
            return None
        function = explain_source.function_of(code)
        names = inspect.getargs(code).args
        arguments = {name: frame.f_locals[name] for name in names}
        invocation = Invocation(function, module, arguments)
        (self._under_way[-1][1].parts if self._under_way else self.calls).append(invocation)
        start = Execution(code.co_firstlineno, ChainMap(dict(frame.f_locals), frame.f_globals))
        self._under_way.append((invocation, start))
        return self._line

    def _watcher(self, frame: FrameType, event: str, argument: Any) -> Callable[..., Any]:
        if event == "return":
            self._muted -= 1
        return self._watcher

    def _line(self, frame: FrameType, event: str, argument: Any) -> Callable[..., Any]:
        """Something happens in a function that is watched."""
        invocation, execution = self._under_way[-1]
        if event == "return":
            execution.after = dict(frame.f_locals)
            invocation.result = argument
            # An exception that leaves the function shows as a return of None, right after it.
            invocation.raised = execution.next_line == -1
            if invocation.raised:
                execution.next_line = 0
            self._under_way.pop()
        elif event == "exception":
            execution.next_line = -1
        elif event == "line":
            statement = invocation.function.statements.get(frame.f_lineno)
            line = frame.f_lineno if statement is None else statement.lineno
            if line == execution.line and frame.f_lineno != line:
                return self._line  # another line of the same statement
            if invocation.executions and line == execution.line and _same(statement):
                return self._line  # back at its first line, after its arguments
            local = dict(frame.f_locals)
            execution.after = local
            execution.next_line = line
            execution = Execution(line, ChainMap(local, frame.f_globals))
            invocation.executions.append(execution)
            self._under_way[-1] = (invocation, execution)
            self.statements += 1
        return self._line


def _same(statement: Any) -> bool:
    """Whether two events in a row on one line are the same execution: a statement over several lines."""
    return statement is not None and statement.end_lineno != statement.lineno and not hasattr(statement, "body")
