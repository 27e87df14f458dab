# SPDX-License-Identifier: GPL-2.0-only
"""Which functions of the allocator a call goes through, as it goes through them.

Nothing here knows the allocator: Python's profiler tells of every function that begins and ends.
It sees the interpreted engine only.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType
from typing import NamedTuple, TypeVar

from physmem import engine
from physmem.errors import UsageError

__all__ = ["Step", "watch"]

T = TypeVar("T")

#: Rooms of accessors, and accessors elsewhere: they would drown the functions that call them.
_ACCESSOR_ROOMS = frozenset(f"kernelmm.core.{room}" for room in ("mm", "mmzone", "page", "vmstat"))
_ACCESSORS = frozenset(
    {
        "mems_allowed", "read_mems_allowed_begin", "read_mems_allowed_retry",
        "set_zonelist", "wmark_pages", "zone_of", "zonerefs", "zonerefs_end",
    }
)  # fmt: skip


class Step(NamedTuple):
    """A function that was called, perhaps several times in a row.

    :ivar depth: how many of the functions shown were under way by then
    """

    depth: int
    name: str
    times: int = 1

    def __str__(self) -> str:
        return "  " * self.depth + self.name + (f" x {self.times}" if self.times > 1 else "")


def watch(call: Callable[[], T]) -> tuple[T, list[Step]]:
    """Make a call; what it returns, and the functions of :mod:`kernelmm.core` that it went through, in order.

    :raises UsageError: the engine is compiled
    """
    if engine.current() != "interpreted":
        raise UsageError("only the interpreted engine's path can be watched")
    steps: list[Step] = []
    under_way: list[FrameType] = []

    def profile(frame: FrameType, event: str, _: object) -> None:
        if event == "call":
            module = frame.f_globals.get("__name__", "")
            name = frame.f_code.co_name
            if module.startswith("kernelmm.core.") and module not in _ACCESSOR_ROOMS and name not in _ACCESSORS:
                step = Step(len(under_way), name)
                if steps and steps[-1][:2] == step[:2]:
                    step = step._replace(times=steps.pop().times + 1)
                steps.append(step)
                under_way.append(frame)
        elif event == "return" and under_way and under_way[-1] is frame:
            under_way.pop()

    before = sys.getprofile()
    sys.setprofile(profile)
    try:
        result = call()
    finally:
        sys.setprofile(before)
    return result, steps
