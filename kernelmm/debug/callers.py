# SPDX-License-Identifier: GPL-2.0-only
"""Who called the allocator: Python's stack as return addresses of a kernel.

Each function that was seen on the stack has addresses of its own, where a kernel has its modules: as many as
its bytecode has bytes, so that a return address says where in it the call was.  The names are in the
machine's memory (the variable ``caller_symbols``, a kallsyms of its own), and are saved with it.  Functions of the
allocator's hot rooms are left out: with the compiled engine they are not on Python's stack.
"""

from __future__ import annotations

import struct
import sys
from bisect import bisect_right
from typing import NamedTuple

from kernelmm.bringup.kernel import Kernel
from kernelmm.bringup.variables import CALLER_SYMBOLS

__all__ = ["Callers"]

#: MODULES_VADDR, and the end of that region.
MODULES_VADDR = 0xFFFFFFFFA0000000
MODULES_END = 0xFFFFFFFFFF000000
ULONG_MAX = (1 << 64) - 1

#: A record: where the function begins, its bytes, and the length of ``name NUL module`` that follows.
_RECORD = struct.Struct("<QIH")
_ALIGN = 16
#: Modules whose functions are the allocator itself.
_OURS = ("kernelmm.core.", "kernelmm.debug.", "kernelmm.machine", "kernelmm.pressure.attempt", "physmem.", "contextlib")


class Function(NamedTuple):
    """A function that has called the allocator."""

    start: int
    size: int
    name: str
    module: str


class Callers:
    """Addresses of the functions that call the allocator, and their names."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.functions: list[Function] = []
        self.known: dict[tuple[str, str, int], int] = {}
        self.in_memory = "caller_symbols" in kernel.symbols
        if self.in_memory:
            self._load()

    def _load(self) -> None:
        """Take over the names that the memory has; what follows a malformed record is not read."""
        kernel = self.kernel
        length = min(kernel.var("caller_symbols_len"), CALLER_SYMBOLS)
        data = kernel.ram.read(kernel.phys(kernel.symbols["caller_symbols"]), length)
        at = 0
        while at + _RECORD.size <= length:
            start, size, named = _RECORD.unpack_from(data, at)
            at += _RECORD.size + named
            name, _, module = data[at - named : at].decode("utf-8", "replace").partition("\0")
            if start < self._next() or not name:
                break
            self._know(Function(start, size, name, module))

    def _next(self) -> int:
        """Where the next function begins."""
        if not self.functions:
            return MODULES_VADDR
        last = self.functions[-1]
        return last.start + last.size + _ALIGN - 1 & -_ALIGN

    def _know(self, function: Function) -> None:
        self.functions.append(function)
        self.known[function.module, function.name, function.size] = function.start

    def address(self, module: str, name: str, size: int) -> int:
        """Where a function begins: it is entered if it is new."""
        key = module, name, size
        if key not in self.known:
            self._know(Function(self._next(), size, name, module))
            self._store(self.functions[-1])
        return self.known[key]

    def _store(self, function: Function) -> None:
        """Enter a function in memory; what does not fit has no name there."""
        text = f"{function.name}\0{function.module}".encode()[: (1 << 16) - 1]
        record = _RECORD.pack(function.start, function.size, len(text)) + text
        if not self.in_memory:
            return
        kernel = self.kernel
        at = kernel.var("caller_symbols_len")
        if at + len(record) <= CALLER_SYMBOLS:
            kernel.ram.write(kernel.phys(kernel.symbols["caller_symbols"]) + at, record)
            kernel.set_var("caller_symbols_len", at + len(record))

    def save_stack_trace(self, most: int) -> list[int]:
        """``save_stack_trace``: return addresses, innermost first; ULONG_MAX ends them if there is room."""
        entries: list[int] = []
        frame = sys._getframe(1)
        while frame is not None and len(entries) < most:
            module = str(frame.f_globals.get("__name__", "?"))
            if not (module + ".").startswith(_OURS):
                code = frame.f_code
                size = len(code.co_code)
                start = self.address(module, getattr(code, "co_qualname", code.co_name), size)
                entries.append(start + min(max(frame.f_lasti, 0), size))
            frame = frame.f_back  # type: ignore[assignment]
        if len(entries) < most:
            entries.append(ULONG_MAX)
        return entries

    def symbol(self, address: int) -> str:
        """``%pS``: function, offset, size and module; the number alone if nothing is known to be there."""
        i = bisect_right(self.functions, address, key=lambda function: function.start) - 1
        if i >= 0:
            start, size, name, module = self.functions[i]
            if address <= start + size:
                return f"{name}+{address - start:#x}/{size:#x} [{module}]"
        return f"{address:#x}"
