#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""Write the ``.pxd`` beside every hot room, from the room's own annotations.

A hot room is a module whose second line is ``# room: compiled`` or ``# room: inline``.

* *compiled* rooms become extension modules.  Their ``.pxd`` declares the C types of
  functions, locals and attributes; the statements stay in the ``.py``.
* *inline* rooms hold accessors of a line or two.  A call into another extension module
  goes through a pointer, which would cost more than the accessor does, so their ``.pxd``
  repeats each body as ``cdef inline`` and the ``.py`` itself is never compiled.  Their
  integer constants become C enumerators.  An access to a typed view of memory
  (``mm.as_u64[at >> 3]``) becomes what C would do with ``at``, *unchecked*: that there is memory is
  proved where the address was translated (:mod:`physmem.address`).  What calls nothing that may
  raise cannot raise itself, and is declared so: its callers need not ask.

So there is one source: types are written once, as annotations from :mod:`physmem.ctype`,
and a test runs ``tools/pxd.py --check``.  A function is hot if every parameter and the
result has a C type or is a class of a compiled room; any other is left to Python.
"""

from __future__ import annotations

import argparse
import ast
import copy
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("physmem", "kernelmm")

C_TYPES = {
    "u8": "uint8_t",
    "u32": "uint32_t",
    "u64": "uint64_t",
    "s8": "int8_t",
    "s32": "int32_t",
    "s64": "int64_t",
    "bool": "bint",
}
#: The views of all memory, by attribute, and the log2 of the bytes of what they are of.
MEMORY = {f"as_{name}": int(name[1:]).bit_length() - 4 for name in C_TYPES if name != "bool"}
VIEWS = {f"{name}_view": f"{c}[::1]" for name, c in C_TYPES.items() if name != "bool"}
VIEWS |= {f"{name}_const_view": f"const {C_TYPES[name]}[::1]" for name in ("u8", "u32", "u64")}
#: What a function returns when it raises: a value it hardly ever returns otherwise.
EXCEPT = {
    "u8": "except? 0xBD",
    "u32": "except? 0xBAD0BAD0",
    "u64": "except? 0xBAD0BAD0BAD0BAD0",
    "s8": "except? -0x43",
    "s32": "except? -0x5BAD5BAD",
    "s64": "except? -0x5BAD5BAD5BAD5BAD",
    "bool": "except -1",
}
_INT32 = range(-(1 << 31), 1 << 31)


class RoomError(SystemExit):
    """A hot room uses something that this tool cannot declare."""


class Room:
    """One hot module: its syntax tree and what others import from it."""

    def __init__(self, path: Path, kind: str) -> None:
        self.path = path
        self.kind = kind
        self.name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        self.tree = ast.parse(path.read_text(), str(path))
        self.classes = [node for node in self.tree.body if isinstance(node, ast.ClassDef)]
        self.functions = {node.name: node for node in self.tree.body if isinstance(node, ast.FunctionDef)}


def find_rooms() -> dict[str, Room]:
    """Every hot room of the two packages, by module name."""
    rooms = {}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            lines = path.read_text().split("\n", 2)
            if len(lines) > 1 and lines[1].startswith("# room: "):
                room = Room(path, lines[1].removeprefix("# room: ").strip())
                if room.kind not in ("compiled", "inline"):
                    raise RoomError(f"{path}: unknown kind of room {room.kind!r}")
                rooms[room.name] = room
    return rooms


def annotation(node: ast.expr | None) -> str:
    """The annotation as written; ``""`` if there is none."""
    return "" if node is None else ast.unparse(node)


class Writer:
    """The text of one ``.pxd``."""

    def __init__(self, room: Room, rooms: dict[str, Room]) -> None:
        self.room = room
        self.rooms = rooms
        self.hot_classes = {cls.name for other in rooms.values() if other.kind == "compiled" for cls in other.classes}
        self.lines: list[str] = []

    def c_type(self, name: str) -> str | None:
        """C type of a parameter or local, or None if it has none."""
        return C_TYPES.get(name) or VIEWS.get(name) or (name if name in self.hot_classes else None)

    def text(self) -> str:
        imports = self.imports()
        for node in self.room.tree.body:
            if isinstance(node, ast.Assign):
                self.constant(node)
            elif isinstance(node, ast.ClassDef) and self.room.kind == "compiled":
                self.declare_class(node)
            elif isinstance(node, ast.FunctionDef) and self.is_hot(node, skip_self=False):
                if self.room.kind == "inline":
                    self.inline_function(node)
                else:
                    self.declare_function(node, indent="")
        head = [
            "# SPDX-License-Identifier: GPL-2.0-only",
            f"# Written by tools/pxd.py from {self.room.path.name}; do not edit.",
            "",
            "cimport cython",
            "from libc.stdint cimport int8_t, int32_t, int64_t, uint8_t, uint32_t, uint64_t",
        ]
        return "\n".join([*head, *imports, *self.lines]) + "\n"

    def imports(self) -> list[str]:
        """cimports that mirror the imports of other hot rooms."""
        found = []
        for node in self.room.tree.body:
            if not isinstance(node, ast.ImportFrom) or node.level:
                continue
            for alias in node.names:
                source = self.rooms.get(f"{node.module}.{alias.name}")
                home = self.rooms.get(node.module or "")
                is_class = home is not None and home.kind == "compiled" and alias.name in self.hot_classes
                if source is not None or is_class:
                    found.append(f"from {node.module} cimport {alias.name}")
                elif home is not None and alias.name.islower():
                    raise RoomError(
                        f"{self.room.path}: import the room {node.module}, not its name {alias.name!r}: "
                        "Cython cannot bind one name both ways"
                    )
        return found

    def constant(self, node: ast.Assign) -> None:
        """A module-level integer of an inline room, as a C enumerator."""
        target = node.targets[0]
        if self.room.kind != "inline" or not isinstance(target, ast.Name):
            return
        namespace = vars(__import__(self.room.name, fromlist=["_"]))
        value = namespace[target.id]
        if isinstance(value, int) and not isinstance(value, bool) and value in _INT32:
            self.lines += ["cdef enum:", f"    {target.id} = {value}"]

    def is_hot(self, function: ast.FunctionDef, *, skip_self: bool) -> bool:
        names = [annotation(arg.annotation) for arg in function.args.args[1 if skip_self else 0 :]]
        plain = not (function.args.vararg or function.args.kwonlyargs or function.args.kwarg or function.args.defaults)
        returns = annotation(function.returns)
        known = returns == "None" or returns in EXCEPT or returns in self.hot_classes
        return plain and known and all(self.c_type(name) is not None for name in names)

    def signature(self, function: ast.FunctionDef, *, is_method: bool) -> str:
        arguments = []
        for position, arg in enumerate(function.args.args):
            c = None if is_method and position == 0 else self.c_type(annotation(arg.annotation))
            arguments.append(arg.arg if c is None else f"{c} {arg.arg}")
        returns = annotation(function.returns)
        call = f"{function.name}({', '.join(arguments)})"
        if self.room.kind == "inline" and self.cannot_raise(self.room, function):
            return f"{'int' if returns == 'None' else self.c_type(returns)} {call} noexcept"
        if returns == "None":
            # Compiled rooms return None as Python does: a bare ``return`` is allowed there.
            return f"int {call} except -1" if self.room.kind == "inline" else call
        return f"{self.c_type(returns)} {call} {EXCEPT.get(returns, '')}".rstrip()

    def cannot_raise(self, room: Room, function: ast.FunctionDef) -> bool:
        """Whether nothing in a function of an inline room raises: it reckons, and accesses memory known to be there."""
        for node in ast.walk(function):
            if isinstance(node, ast.Raise | ast.Assert):
                return False
            if isinstance(node, ast.Call) and not self.call_cannot_raise(room, node.func):
                return False
        return True

    def call_cannot_raise(self, room: Room, called: ast.expr) -> bool:
        """Whether what is called is ``range``, or a function of an inline room that :meth:`cannot_raise`."""
        if isinstance(called, ast.Name):
            name, home = called.id, room
            if name == "range":
                return True
        elif isinstance(called, ast.Attribute) and isinstance(called.value, ast.Name):
            name = called.attr
            modules = {
                alias.name: self.rooms.get(f"{node.module}.{alias.name}")
                for node in room.tree.body
                if isinstance(node, ast.ImportFrom)
                for alias in node.names
            }
            found = modules.get(called.value.id)
            if found is None:
                return False
            home = found
        else:
            return False
        function = home.functions.get(name)
        return home.kind == "inline" and function is not None and self.cannot_raise(home, function)

    def lint(self, function: ast.FunctionDef) -> None:
        """Refuse what Cython would silently do with Python objects: wide literals in sums, globals."""
        plain = {
            id(node.value)
            for node in ast.walk(function)
            if isinstance(node, ast.AnnAssign | ast.Assign | ast.Return) and node.value is not None
        }
        for node in ast.walk(function):
            if isinstance(node, ast.Constant) and type(node.value) is int:
                if node.value not in _INT32 and id(node) not in plain:
                    raise RoomError(f"{self.room.path}:{node.lineno}: {node.value:#x} needs a local with a type")
            elif isinstance(node, ast.Name) and self.room.kind == "compiled" and node.id in self.globals:
                raise RoomError(f"{self.room.path}:{node.lineno}: {node.id} is a global: put it into an inline room")

    @property
    def globals(self) -> set[str]:
        """Module-level names that are assigned: Python objects, in a compiled room."""
        return {
            target.id
            for node in self.room.tree.body
            if isinstance(node, ast.Assign)
            for target in node.targets
            if isinstance(target, ast.Name)
        }

    def local_types(self, function: ast.FunctionDef) -> dict[str, str]:
        """Every local and its C type; a local without a C type would be a Python object, and slow."""
        types: dict[str, str] = {}
        assigned: list[str] = []
        for node in ast.walk(function):
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                name = annotation(node.annotation)
                c = self.c_type(name)
                if c is not None:
                    types[node.target.id] = c
                elif name != "object":
                    raise RoomError(f"{self.room.path}:{node.lineno}: {name!r} has no C type")
                else:
                    types[node.target.id] = "object"
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                assigned.append(node.id)
        arguments = {arg.arg for arg in function.args.args}
        for name in assigned:
            if name not in types and name not in arguments:
                raise RoomError(f"{self.room.path}:{function.lineno}: {function.name}: local {name!r} has no type")
        return {name: c for name, c in types.items() if c != "object"}

    def declare_function(self, function: ast.FunctionDef, indent: str) -> None:
        self.lint(function)
        types = self.local_types(function)
        self.lines.append("")
        if types:
            declared = ", ".join(f"{name}={c}" for name, c in types.items())
            self.lines.append(f"{indent}@cython.locals({declared})")
        self.lines.append(f"{indent}cpdef {self.signature(function, is_method=bool(indent))}")

    def declare_class(self, cls: ast.ClassDef) -> None:
        bases = ", ".join(ast.unparse(base) for base in cls.bases)
        self.lines += ["", f"cdef class {cls.name}({bases}):" if bases else f"cdef class {cls.name}:"]
        for node in cls.body:
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                name = annotation(node.annotation)
                c = self.c_type(name) or "object"
                self.lines.append(f"    cdef public {c} {node.target.id}")
        for node in cls.body:
            is_method = isinstance(node, ast.FunctionDef) and not node.name.startswith("__") and not node.decorator_list
            if isinstance(node, ast.FunctionDef) and is_method and self.is_hot(node, skip_self=True):
                self.declare_function(node, indent="    ")

    def inline_function(self, function: ast.FunctionDef) -> None:
        self.lint(function)
        types = self.local_types(function)
        returns_nothing = annotation(function.returns) == "None"
        strip = Strip(returns_nothing)
        body = [strip.visit(copy.deepcopy(node)) for node in function.body if not is_docstring(node)]
        text = [line for node in body if node is not None for line in ast.unparse(node).split("\n")]
        self.lines += ["", f"cdef inline {self.signature(function, is_method=False)}:"]
        self.lines += [f"    cdef {c} {name}" for name, c in types.items()]
        # A decorator would be dropped where the body is inlined.
        self.lines += ["    with cython.boundscheck(False):"]
        self.lines += [f"        {line}" for line in text]
        if returns_nothing:
            self.lines.append("    return 0")


def is_docstring(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


class Strip(ast.NodeTransformer):
    """Annotated assignments become plain ones; ``return`` of nothing returns the C 0; memory is accessed as C does."""

    def __init__(self, returns_nothing: bool) -> None:
        self.returns_nothing = returns_nothing

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.stmt | None:
        if node.value is None:
            return None
        self.generic_visit(node)
        return ast.copy_location(ast.Assign([node.target], node.value, lineno=node.lineno), node)

    def visit_Return(self, node: ast.Return) -> ast.Return:
        self.generic_visit(node)
        if self.returns_nothing and node.value is None:
            node.value = ast.Constant(0)
        return node

    def visit_Subscript(self, node: ast.Subscript) -> ast.Subscript:
        """``mm.as_u64[at >> 3]`` is ``*(u64 *)(memory + at)``."""
        self.generic_visit(node)
        view, index = node.value, node.slice
        if not isinstance(view, ast.Attribute) or (MEMORY.get(view.attr, 0) == 0 and view.attr != "as_s8"):
            return node
        shift = MEMORY[view.attr]
        shifted = isinstance(index, ast.BinOp) and isinstance(index.op, ast.RShift) and ast.unparse(index.right)
        if shifted == str(shift):
            at = ast.unparse(index.left)  # type: ignore[attr-defined]
        else:
            at = ast.unparse(ast.BinOp(index, ast.LShift(), ast.Constant(shift)))
        c = C_TYPES[view.attr.removeprefix("as_")]
        place = ast.Name(f"(<{c} *>&{ast.unparse(view.value)}.as_u8[{at}])")
        return ast.Subscript(place, ast.Constant(0), node.ctx)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if a .pxd is stale")
    check = parser.parse_args().check
    sys.path.insert(0, str(ROOT))
    # Constants are looked up in the rooms themselves, built or not.
    os.environ["PHYSMEM_ENGINE"] = "interpreted"
    rooms = find_rooms()
    stale = []
    for room in rooms.values():
        text = Writer(room, rooms).text()
        target = room.path.with_suffix(".pxd")
        if not target.exists() or target.read_text() != text:
            stale.append(target)
            if not check:
                target.write_text(text)
    for target in stale:
        print(f"{'stale' if check else 'wrote'} {target.relative_to(ROOT)}")
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
