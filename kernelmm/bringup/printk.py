# SPDX-License-Identifier: GPL-2.0-only
"""The kernel's log, in its memory, where dump readers find it (kernel/printk/printk.c, ``struct printk_log``).

A record is a header of 16 bytes (time in ns, length of the record, of the text and of the dictionary,
facility, level) and the text, padded to 4 bytes.
"""

from __future__ import annotations

import struct

from kernelmm.bringup.kernel import Kernel
from kernelmm.bringup.linker import LOG_BUF_LEN
from kernelmm.bringup.rounding import round_up

__all__ = ["log", "printk"]

_HEADER = struct.Struct("<QHHHBB")
_ALIGN = 4
#: KERN_INFO, in the upper three bits of the last byte.
_INFO = 6 << 5


def printk(kernel: Kernel, text: str) -> None:
    """Add a line to the log; what does not fit is lost.  No time passes while a machine of ours boots."""
    data = text.encode()
    size = round_up(_HEADER.size + len(data), _ALIGN)
    at = kernel.var("log_next_idx")
    # The kernel leaves room for a last header, which says that the log goes on at its beginning.
    if at + size + _HEADER.size > LOG_BUF_LEN:
        return
    record = _HEADER.pack(0, size, len(data), 0, 0, _INFO) + data
    kernel.ram.write(kernel.phys(kernel.symbols["__log_buf"]) + at, record.ljust(size, b"\0"))
    kernel.set_var("log_next_idx", at + size)


def log(kernel: Kernel) -> list[str]:
    """The lines of the log of a kernel of ours."""
    start = kernel.phys(kernel.symbols["__log_buf"])
    at, lines = kernel.var("log_first_idx"), []
    while at < kernel.var("log_next_idx"):
        _, size, length, *_ = _HEADER.unpack(kernel.ram.read(start + at, _HEADER.size))
        lines.append(kernel.ram.read(start + at + _HEADER.size, length).decode())
        at += size
    return lines
