# SPDX-License-Identifier: GPL-2.0-only
"""What is known of who allocated which page, from outside the memory: a trace, or a page_owner dump."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

__all__ = ["Allocation", "History"]


@dataclass(frozen=True)
class Allocation:
    """A block that was allocated.

    :ivar pfn: its first page
    :ivar gfp: as the source spells it
    :ivar task: who allocated it; empty if the source does not say
    :ivar source: where that is written: file and line
    :ivar freed: where it is written that it was freed since; empty if it was not
    """

    pfn: int
    order: int
    gfp: str
    task: str
    source: str
    freed: str = ""

    @property
    def end(self) -> int:
        """One past its last page."""
        return self.pfn + (1 << self.order)

    def __str__(self) -> str:
        who = f" by {self.task}" if self.task else ""
        return f"order {self.order} at pfn {self.pfn}{who} ({self.source})"


class History(Protocol):
    """Somebody who knows."""

    def allocation(self, pfn: int) -> Allocation | None:
        """The last allocation that a page was part of; None if none is known."""
