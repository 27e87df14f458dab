# SPDX-License-Identifier: GPL-2.0-only
"""Explain what the allocator does, by watching it do it.

:func:`explain` performs operations on a machine and tells, function by function, which path each
really took: the decisions with their numbers, the words written with their names, the result.
All of it is read from the execution: from the source that ran, its variables, and the memory.
"""

from __future__ import annotations

import ast
import copy
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeVar

from kernelmm.study.explain_calls import Performed, Request, parse_requests
from kernelmm.study.explain_model import Call, Change, Explanation, Line, Operation
from kernelmm.study.explain_recorder import Execution, Invocation, Recorder, Stored
from kernelmm.study.explain_source import Replay, Unknown
from kernelmm.study.explain_values import Names, is_physical
from kernelmm.study.trace import Event
from physmem.errors import MEMORY_FAULTS, PhysmemError, memory_fault

if TYPE_CHECKING:
    from kernelmm.machine import Machine

__all__ = ["explain", "watch"]

T = TypeVar("T")

#: What the code's names for physical addresses are the addresses of.
BASES = {"at": "page", "z": "zone", "pageset": "pageset", "zref": "zoneref", "head_at": "head", "buddy_at": "buddy"}
#: Variables that only say how far one place in memory is from another.
_OFFSETS = frozenset({"head", "lists", "step", "half"})

#: Arguments that every function has, and what says the same as another argument in another form.
_SILENT = frozenset({"mm", "space", "self"})


def explain(machine: Machine, operations: Iterable[str] | str) -> Explanation:
    """Perform operations on a machine, and tell how it went.

    The machine is changed.  The first error ends it; the explanation tells what led there.

    :param operations: as :mod:`kernelmm.study.explain_calls` has them
    :raises UsageError: an operation is malformed, or the engine is compiled
    :raises PhysmemError: an argument is not one of this machine, or the image is too damaged to be told of
    """
    requests = parse_requests(operations)
    names = Names(machine.mm, machine.dump)
    release = machine.dump.info.get("OSRELEASE", "?")
    found = Explanation(machine.dump.image.path, release)
    done: list[Performed] = []
    for request in requests:
        operation, missed = _perform(machine, names, request, done)
        found.operations.append(operation)
        found.missed += missed
        if operation.error is not None:
            break
    return found


def watch(machine: Machine, call: Callable[[], T]) -> tuple[T, list[Call]]:
    """Make a call into the allocator's rooms; what it returned, and the functions that ran.

    :raises UsageError: the engine is compiled
    """
    recorder = Recorder(machine.mm)
    with recorder.watching():
        result = call()
    teller = _Teller(Names(machine.mm, machine.dump))
    return result, [teller.call(each) for each in recorder.calls]


def _perform(machine: Machine, names: Names, request: Request, done: list[Performed]) -> tuple[Operation, int]:
    bound = request.bind(machine, done)
    operation = Operation(request.text, bound.call)
    printed = len(machine.console.lines)
    recorder = Recorder(machine.mm)
    events: list[Event] = []
    result: int | None = None
    with ExitStack() as stack:
        stack.enter_context(machine.trace(events.append))
        stack.enter_context(recorder.watching())
        try:
            result = bound.perform()
        except PhysmemError as error:
            operation.error = str(error)
        except MEMORY_FAULTS as error:
            operation.error = f"{memory_fault(request.verb)} ({error})"
    done.append(Performed(result, bound.order))
    if bound.returns and operation.error is None:
        operation.result = "NULL" if result is None else bound.show(result)
    operation.printed = machine.console.lines[printed:]
    operation.events = [event.text for event in events]
    teller = _Teller(names)
    operation.calls = [teller.call(each) for each in recorder.calls]
    return operation, recorder.missed


class _Teller:
    """Turns what was recorded into what can be told."""

    def __init__(self, names: Names) -> None:
        self._names = names
        self._codes: dict[int, tuple[ast.stmt, str]] = {}

    def call(self, made: Invocation) -> Call:
        function = made.function
        arguments = self._arguments(made)
        result = None if made.result is None else self._names.number(made.result, function.name)
        lines = [self._line(made, execution) for execution in made.executions]
        return Call(
            function=function.name,
            kernel=function.kernel,
            module=made.module,
            file=function.file,
            line=function.line,
            about=function.about,
            detail=function.detail,
            arguments=arguments,
            result=result,
            raised=made.raised,
            lines=lines,
        )

    def _arguments(self, made: Invocation) -> list[tuple[str, str]]:
        """The arguments that say something: of a page or zone in both forms, the kernel address only."""
        shown = {name: self._names.number(value, name) for name, value in made.arguments.items() if name not in _SILENT}
        said = {text for name, text in shown.items() if not is_physical(name)}
        return [
            (BASES.get(name, name), text)
            for name, text in shown.items()
            if not is_physical(name) or (name in BASES and not any(text in each for each in said))
        ]

    def _line(self, made: Invocation, execution: Execution) -> Line:
        function = made.function
        stmt = function.statements.get(execution.line)
        source = function.source.get(execution.line, "")
        line = Line(execution.line, source, source, "", "other", False, function.comments.get(execution.line, ""))
        if stmt is not None:
            line.code = self._code(stmt, execution)
            self._work(line, stmt, execution)
        line.parts = [
            self.call(part) if isinstance(part, Invocation) else self._change(part, source) for part in execution.parts
        ]
        if stmt is not None and any(
            isinstance(p, Call) and not p.detail and p.function == _only_call(stmt) for p in line.parts
        ):
            line.decisive = False  # the call itself tells what it returned
        return line

    def _code(self, stmt: ast.stmt, execution: Execution) -> str:
        """What a statement works out, without types, module names and the arguments that all functions have."""
        known = self._codes.get(id(stmt))
        if known is None:
            known = stmt, _plain(stmt, execution)  # the statement is kept, so that its id stays its own
            self._codes[id(stmt)] = known
        return known[1]

    def _work(self, line: Line, stmt: ast.stmt, execution: Execution) -> None:
        """Work the statement out with the values that it had."""
        calls = [(p.function.name, p.result) for p in execution.parts if isinstance(p, Invocation)]
        replay = Replay(execution.names, execution.reads, calls, self._names.number)
        try:
            if isinstance(stmt, ast.If | ast.While):
                value, text = replay.run(stmt.test)
                verdict = "yes" if value else "no"
                line.kind = "decision"
                line.worked = verdict if text in ("yes", "no", "True", "not yes", "not no") else f"{text}: {verdict}"
                line.decisive = not _is_configuration(stmt.test)
            elif isinstance(stmt, ast.Return):
                line.kind = "return"
                if stmt.value is not None:
                    value, text = replay.run(stmt.value)
                    shown = self._names.number(value)
                    line.worked = shown if text == shown else f"{text} = {shown}"
                    line.decisive = not isinstance(stmt.value, ast.Name | ast.Constant)
            elif isinstance(stmt, ast.For) and isinstance(stmt.target, ast.Name):
                self._loop(line, stmt, stmt.target.id, execution)
            elif isinstance(stmt, ast.Assign | ast.AnnAssign | ast.AugAssign):
                self._assignment(line, stmt, replay, execution)
        except Unknown:
            self._after(line, stmt, execution)

    def _assignment(
        self, line: Line, stmt: ast.Assign | ast.AnnAssign | ast.AugAssign, replay: Replay, execution: Execution
    ) -> None:
        target = stmt.targets[0] if isinstance(stmt, ast.Assign) else stmt.target
        if not isinstance(target, ast.Name) or stmt.value is None:
            return
        expression = stmt.value
        if isinstance(stmt, ast.AugAssign):
            expression = ast.BinOp(ast.Name(target.id), stmt.op, stmt.value)
        value, text = replay.run(expression)
        shown = self._names.number(value, target.id)
        line.kind = "value"
        told = text == shown or line.code.endswith(text) or isinstance(expression, ast.Constant | ast.Call)
        line.worked = shown if told else f"{text} = {shown}"
        plain = isinstance(expression, ast.Constant | ast.Name | ast.Attribute)
        line.decisive = not (plain or is_physical(target.id) or target.id in _OFFSETS)

    def _loop(self, line: Line, stmt: ast.For, name: str, execution: Execution) -> None:
        line.kind = "loop"
        inside = stmt.body[0].lineno <= execution.next_line <= (stmt.end_lineno or 0)
        if inside and name in execution.after:
            line.worked = f"{name} = {self._names.number(execution.after[name], name)}"
        elif not inside:
            line.worked = "done"

    def _after(self, line: Line, stmt: ast.stmt, execution: Execution) -> None:
        """What cannot be worked out again can still be told by what came of it."""
        if isinstance(stmt, ast.If | ast.While):
            line.kind, line.decisive = "decision", True
            body = stmt.body
            inside = body[0].lineno <= execution.next_line <= (body[-1].end_lineno or 0)
            line.worked = "yes" if inside else "no"
        elif isinstance(stmt, ast.Assign | ast.AnnAssign | ast.AugAssign):
            target = stmt.targets[0] if isinstance(stmt, ast.Assign) else stmt.target
            if isinstance(target, ast.Name) and target.id in execution.after:
                line.kind = "value"
                line.decisive = not is_physical(target.id)
                line.worked = self._names.number(execution.after[target.id], target.id)

    def _change(self, stored: Stored, source: str) -> Change:
        spot = self._names.spot(stored.phys, source)
        if isinstance(stored.before, bytes) or isinstance(stored.after, bytes):
            same = stored.before == stored.after
            kept = "unchanged" if same else f"{stored.size} bytes"
            return Change(spot.what, spot.field, spot.kind, spot.pfn, kept, kept, (stored.phys, stored.size, 0, 0))
        values = [self._value(value, stored.size, spot.signed, spot.field) for value in (stored.before, stored.after)]
        raw = (stored.phys, stored.size, stored.before, stored.after)
        return Change(spot.what, spot.field, spot.kind, spot.pfn, values[0], values[1], raw)

    def _value(self, value: int, size: int, signed: bool, field: str) -> str:
        if signed and value >> (8 * size - 1):
            return str(value - (1 << 8 * size))
        if field == "flags":
            return f"{value:#x}"
        if field == "index" and size == 8 and value < len(self._names.migratetypes):
            return f"{value} ({self._names.migratetypes[value]})"
        return self._names.number(value)


def _is_configuration(test: ast.expr) -> bool:
    """Whether a test only asks how the machine is set up: ``mm.smp``, ``not mm.tracing``."""
    if isinstance(test, ast.UnaryOp):
        test = test.operand
    if isinstance(test, ast.BoolOp):
        return all(_is_configuration(each) for each in test.values)
    return isinstance(test, ast.Attribute | ast.Constant)


def _only_call(stmt: ast.stmt) -> str | None:
    """The function that a statement is nothing but a call of, give or take a ``not`` or a name for the result."""
    if isinstance(stmt, ast.If | ast.While):
        node: ast.expr | None = stmt.test
    elif isinstance(stmt, ast.Assign | ast.AnnAssign | ast.Return | ast.Expr):
        node = stmt.value
    else:
        return None
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        node = node.operand
    if not isinstance(node, ast.Call):
        return None
    return node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", None)


class _Plain(ast.NodeTransformer):
    """Takes away what a reader need not see."""

    def __init__(self, names: dict[str, Any]) -> None:
        self._names = names

    def visit_Attribute(self, node: ast.Attribute) -> ast.expr:
        self.generic_visit(node)
        if isinstance(node.value, ast.Name) and isinstance(self._names.get(node.value.id), ModuleType):
            return ast.copy_location(ast.Name(node.attr), node)
        return node

    def visit_Subscript(self, node: ast.Subscript) -> ast.expr:
        """A word of memory goes by the field that it is: ``mm.as_u64[(z + mm.zone_flags) >> 3]`` is ``zone.flags``."""
        self.generic_visit(node)
        if not (isinstance(node.value, ast.Attribute) and node.value.attr.startswith("as_")):
            return node
        place = node.slice
        if isinstance(place, ast.BinOp) and isinstance(place.op, ast.RShift):
            place = place.left
        return ast.copy_location(ast.Name(_place(place)), node)

    def visit_Call(self, node: ast.Call) -> ast.expr:
        self.generic_visit(node)
        arguments = [a for a in node.args if not (isinstance(a, ast.Name) and a.id in _SILENT)]
        telling = [a for a in arguments if not (isinstance(a, ast.Name) and is_physical(a.id))]
        node.args = telling or [ast.Name(BASES.get(a.id, a.id)) if isinstance(a, ast.Name) else a for a in arguments]
        return node


#: What the names of offsets begin with.
_PREFIXES = (
    "PAGE_",
    "PCP_",
    "ZONEREF_",
    "zone_",
    "pageset_",
    "pgdat_",
    "zonelist_",
    "section_",
    "LIST_",
    "var_",
    "zlc_",
)


def _place(place: ast.expr) -> str:
    """The place of a word as C would name it, from the sum that makes its address."""
    terms: list[ast.expr] = []
    rest = [place]
    while rest:
        each = rest.pop()
        if isinstance(each, ast.BinOp) and isinstance(each.op, ast.Add):
            rest += [each.right, each.left]
        else:
            terms.append(each)
    base = field = index = ""
    others = []
    for term in terms:
        name = term.attr if isinstance(term, ast.Attribute) else term.id if isinstance(term, ast.Name) else ""
        prefix = next((p for p in _PREFIXES if name.startswith(p)), None)
        if prefix and not field:
            field = name.removeprefix(prefix).lower()
            field = f"_{field}" if field in ("count", "mapcount") and prefix == "PAGE_" else field
        elif name.isupper() and not field:
            field = name.lower()
        elif name and field and base:
            index = f"[{name}]"
        elif isinstance(term, ast.BinOp) and isinstance(term.op, ast.Mult) and isinstance(term.left, ast.Constant):
            index = f"[{ast.unparse(term.right)}]"
        elif not base and not isinstance(term, ast.Constant):
            base = BASES.get(name) or ast.unparse(term).removeprefix("mm.")
        else:
            others.append(ast.unparse(term))
    named = ".".join(filter(None, (base, field))) + index
    return " + ".join([named, *others])


def _plain(stmt: ast.stmt, execution: Execution) -> str:
    modules = {name: value for name, value in execution.names.maps[-1].items() if isinstance(value, ModuleType)}
    node: ast.AST = stmt
    if isinstance(stmt, ast.If | ast.While):
        node = stmt.test
    elif isinstance(stmt, ast.For):
        node = ast.Expr(ast.Compare(stmt.target, [ast.In()], [stmt.iter]))
    elif isinstance(stmt, ast.AnnAssign) and stmt.value is not None:
        node = ast.Assign([stmt.target], stmt.value, lineno=stmt.lineno)
    elif not isinstance(stmt, ast.Assign | ast.AugAssign | ast.Return | ast.Expr):
        return ""
    return ast.unparse(ast.fix_missing_locations(_Plain(modules).visit(copy.deepcopy(node))))
