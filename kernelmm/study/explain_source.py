# SPDX-License-Identifier: GPL-2.0-only
"""The allocator's own source, by statements: what was executed is read there, never retold.

A function's statements are found by line, and an expression can be worked out again with the
values that the execution had: its variables, the words it read from memory and what its calls
returned, in the order in which they happened.
"""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from types import CodeType
from typing import Any, NamedTuple

__all__ = ["Function", "Replay", "Unknown", "function_of"]

_KERNEL_NAME = re.compile(r"``(\w+)``")
#: Statements with a body of their own: only their first line is theirs.
_HEADS = (ast.If, ast.While, ast.For, ast.With, ast.Try)


class Function(NamedTuple):
    """A function as its source has it.

    :ivar kernel: its name in the kernel, which its documentation begins with if it is another one
    :ivar about: the first sentence of its documentation
    :ivar statements: by line
    :ivar comments: the comment above or beside each line that has one
    :ivar detail: whether it is a mere accessor, to be shown with the utmost detail only
    """

    name: str
    kernel: str
    about: str
    file: str
    line: int
    statements: dict[int, ast.stmt]
    source: dict[int, str]
    comments: dict[int, str]
    detail: bool


@cache
def _module(filename: str) -> tuple[ast.Module, list[str]]:
    with open(filename, encoding="utf-8") as file:
        text = file.read()
    return ast.parse(text), text.splitlines()


@cache
def _is_inline(filename: str) -> bool:
    return _module(filename)[1][1].rstrip() == "# room: inline"


@cache
def function_of(code: CodeType) -> Function:
    """The function that a code object was compiled from."""
    tree, lines = _module(code.co_filename)
    node = _find(tree, code)
    doc = inspect.cleandoc(ast.get_docstring(node) or "")
    named = _KERNEL_NAME.match(doc)
    name = code.co_name
    statements: dict[int, ast.stmt] = {}
    for stmt in _statements(node.body):
        for line in range(stmt.lineno, _end(stmt) + 1):
            statements[line] = stmt
    comments: dict[int, str] = {}
    above: list[str] = []
    for number in range(node.lineno, (node.end_lineno or node.lineno) + 1):
        code_part, hash_sign, comment = lines[number - 1].partition("# ")
        if hash_sign and not code_part.strip():
            above.append(comment.strip())
            continue
        if above or (hash_sign and '"' not in code_part):
            comments[number] = " ".join([*above, *([comment.strip()] if hash_sign else [])])
        above = []
    about = re.sub(r"^``\w+``(?:: )?", "", doc.partition("\n\n")[0].replace("\n", " ").partition("  ")[0])
    return Function(
        name=name,
        kernel=named[1] if named else name,
        about=re.sub(r"``|:\w+:", "", about).strip(" ."),
        file=code.co_filename.replace("\\", "/").rpartition("/")[2],
        line=node.lineno,
        statements=statements,
        source={stmt.lineno: _text(stmt, lines) for stmt in statements.values()},
        comments=comments,
        detail=_is_detail(node, code.co_filename),
    )


def _find(tree: ast.Module, code: CodeType) -> ast.FunctionDef:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and node.name == code.co_name:
            first = min([node.lineno, *(each.lineno for each in node.decorator_list)])
            if first == code.co_firstlineno:
                return node
    raise LookupError(f"{code.co_filename}:{code.co_firstlineno}: {code.co_name} is not there")


def _statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    for stmt in body:
        if isinstance(stmt, ast.Expr) and isinstance(stmt.value, ast.Constant):
            continue
        yield stmt
        for part in ("body", "orelse", "finalbody"):
            if isinstance(stmt, _HEADS):
                yield from _statements(getattr(stmt, part, []))


def _end(stmt: ast.stmt) -> int:
    """Last line that is the statement's own."""
    if isinstance(stmt, ast.If | ast.While):
        return stmt.test.end_lineno or stmt.lineno
    if isinstance(stmt, ast.For):
        return stmt.iter.end_lineno or stmt.lineno
    if isinstance(stmt, _HEADS):
        return stmt.lineno
    return stmt.end_lineno or stmt.lineno


def _text(stmt: ast.stmt, lines: list[str]) -> str:
    own = [line.partition("  # ")[0].strip() for line in lines[stmt.lineno - 1 : _end(stmt)]]
    return re.sub(r"(?<=[(\[]) | (?=[)\]])", "", " ".join(line for line in own if not line.startswith("# ")))


def _only_reports(stmt: ast.stmt) -> bool:
    """Whether a condition is that something is broken, so that all it leads to is an error."""
    if not isinstance(stmt, ast.If) or len(stmt.body) != 1 or stmt.orelse:
        return False
    return ast.unparse(stmt.body[0]).startswith(("mm.bad_", "space.bad_"))


def _is_detail(node: ast.FunctionDef, filename: str) -> bool:
    """Whether a function only fetches or puts something: it decides nothing, or it decides one thing and changes none.

    The floor below the allocator (addresses, words, lists) is all detail.
    """
    if "/physmem/" in filename.replace("\\", "/") and "/kernelmm/" not in filename.replace("\\", "/"):
        return True
    branches = writes = calls = 0
    for each in ast.walk(node):
        branches += isinstance(each, ast.If | ast.While | ast.For) and not _only_reports(each)
        if isinstance(each, ast.Return) and isinstance(each.value, ast.BoolOp):
            branches += len(each.value.values)
        writes += isinstance(each, ast.Subscript) and isinstance(each.ctx, ast.Store)
        if isinstance(each, ast.Call) and isinstance(each.func, ast.Attribute):
            owner = each.func.value.id if isinstance(each.func.value, ast.Name) else ""
            writes += owner == "word" and each.func.attr != "bit"
            calls += owner not in ("address", "word", "list_head", "mm", "space")
        elif isinstance(each, ast.Call):
            calls += 1
    if _is_inline(filename) or (node.args.args[:1] and node.args.args[0].arg == "self"):
        return branches < 2 and not (branches and writes)
    return not branches and not writes and not calls


# -- working an expression out again --------------------------------------------------------------


class Unknown(Exception):
    """An expression cannot be worked out: something in it is not known."""


class Replay:
    """Works an expression out with the values of one execution, and writes it down with them.

    :param names: the variables, and what else a name can mean
    :param reads: the words that the statement itself read from memory, in order
    :param calls: names and results of the functions that it called, in order
    :param show: a value as text, given the name it goes by
    """

    def __init__(
        self,
        names: Mapping[str, Any],
        reads: list[int],
        calls: list[tuple[str, Any]],
        show: Callable[[Any, str], str],
    ) -> None:
        self._names = names
        self._reads = iter(reads)
        self._calls = iter(calls)
        self._show = show

    def run(self, node: ast.expr) -> tuple[Any, str]:
        """The value of an expression, and the expression with values in the place of names.

        :raises Unknown: something in it is not known
        """
        method = getattr(self, f"_{type(node).__name__.lower()}", None)
        if method is None:
            raise Unknown(ast.unparse(node))
        found: tuple[Any, str] = method(node)
        return found

    def _constant(self, node: ast.Constant) -> tuple[Any, str]:
        return node.value, str(node.value)

    def _name(self, node: ast.Name) -> tuple[Any, str]:
        if node.id not in self._names:
            raise Unknown(node.id)
        value = self._names[node.id]
        return value, self._show(value, node.id)

    def _attribute(self, node: ast.Attribute) -> tuple[Any, str]:
        base, _ = self.run(node.value)
        try:
            value = getattr(base, node.attr)
        except AttributeError:
            raise Unknown(node.attr) from None
        return value, self._show(value, node.attr)

    def _subscript(self, node: ast.Subscript) -> tuple[Any, str]:
        if isinstance(node.value, ast.Attribute) and node.value.attr.startswith("as_"):
            self.run(node.slice)  # reads and calls inside come first
            value = next(self._reads, None)
            if value is None:
                raise Unknown("read")
            return value, self._show(value, ast.unparse(node.slice))
        base, text = self.run(node.value)
        index, index_text = self.run(node.slice)
        try:
            value = base[index]
        except (LookupError, TypeError):
            raise Unknown(text) from None
        return value, self._show(value, "") if isinstance(value, int) else f"{text}[{index_text}]"

    def _call(self, node: ast.Call) -> tuple[Any, str]:
        values = [self.run(argument)[0] for argument in node.args]
        for keyword in node.keywords:
            self.run(keyword.value)
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "?")
        if name in ("len", "min", "max", "int", "bool", "abs"):
            builtins: dict[str, Any] = {"len": len, "min": min, "max": max, "int": int, "bool": bool, "abs": abs}
            value = builtins[name](*values)
            return value, self._show(value, name)
        called, value = next(self._calls, ("", None))
        if called != name:
            raise Unknown(name)
        return value, self._show(value, name)

    def _binop(self, node: ast.BinOp) -> tuple[Any, str]:
        left, left_text = self.run(node.left)
        right, right_text = self.run(node.right)
        sign, work = _OPERATORS[type(node.op)]
        if not isinstance(left, int) or not isinstance(right, int):
            raise Unknown(sign)
        in_a_row = isinstance(node.left, ast.BinOp) and type(node.left.op) is type(node.op)
        if isinstance(node.left, ast.BinOp | ast.BoolOp | ast.Compare) and not in_a_row:
            left_text = f"({left_text})"
        if isinstance(node.right, ast.BinOp | ast.BoolOp | ast.Compare):
            right_text = f"({right_text})"
        return work(left, right), f"{left_text} {sign} {right_text}"

    def _unaryop(self, node: ast.UnaryOp) -> tuple[Any, str]:
        value, text = self.run(node.operand)
        if isinstance(node.op, ast.Not):
            return not value, {"yes": "no", "no": "yes"}.get(text, f"not {text}")
        if not isinstance(value, int):
            raise Unknown("sign")
        if isinstance(node.op, ast.USub):
            return -value, f"-{text}"
        return ~value, f"~{text}"

    def _boolop(self, node: ast.BoolOp) -> tuple[Any, str]:
        is_and = isinstance(node.op, ast.And)
        parts = []
        value: Any = None
        for each in node.values:
            value, text = self.run(each)
            parts.append(text)
            if bool(value) != is_and:
                break
        return value, (" and " if is_and else " or ").join(parts)

    def _compare(self, node: ast.Compare) -> tuple[Any, str]:
        value, text = self.run(node.left)
        verdict = True
        for op, comparator in zip(node.ops, node.comparators, strict=True):
            other, other_text = self.run(comparator)
            sign, work = _COMPARISONS[type(op)]
            try:
                verdict = bool(work(value, other))
            except TypeError:
                raise Unknown(sign) from None
            text += f" {sign} {other_text}"
            if not verdict:
                break
            value = other
        return verdict, text

    def _ifexp(self, node: ast.IfExp) -> tuple[Any, str]:
        test, _ = self.run(node.test)
        return self.run(node.body if test else node.orelse)


_OPERATORS: dict[type, tuple[str, Callable[[Any, Any], Any]]] = {
    ast.Add: ("+", lambda a, b: a + b),
    ast.Sub: ("-", lambda a, b: a - b),
    ast.Mult: ("*", lambda a, b: a * b),
    ast.FloorDiv: ("/", lambda a, b: a // b if b else 0),
    ast.Mod: ("%", lambda a, b: a % b if b else 0),
    ast.LShift: ("<<", lambda a, b: a << b if 0 <= b < 256 else 0),
    ast.RShift: (">>", lambda a, b: a >> b if b >= 0 else 0),
    ast.BitAnd: ("&", lambda a, b: a & b),
    ast.BitOr: ("|", lambda a, b: a | b),
    ast.BitXor: ("^", lambda a, b: a ^ b),
}
_COMPARISONS: dict[type, tuple[str, Callable[[Any, Any], Any]]] = {
    ast.Eq: ("==", lambda a, b: a == b),
    ast.NotEq: ("!=", lambda a, b: a != b),
    ast.Lt: ("<", lambda a, b: a < b),
    ast.LtE: ("<=", lambda a, b: a <= b),
    ast.Gt: (">", lambda a, b: a > b),
    ast.GtE: (">=", lambda a, b: a >= b),
    ast.Is: ("is", lambda a, b: a is b),
    ast.IsNot: ("is not", lambda a, b: a is not b),
    ast.In: ("in", lambda a, b: a in b),
    ast.NotIn: ("not in", lambda a, b: a not in b),
}
