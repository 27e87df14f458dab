# SPDX-License-Identifier: GPL-2.0-only
"""What can be wrong with a trace, and what it leaves allocated."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["KINDS", "Finding", "Leak"]

#: What can be wrong with a trace.
KINDS = {
    "double_free": "a page is freed that was freed before, and not allocated since",
    "not_allocated": "a page is freed that is in the allocator's own hands",
    "handed_out_twice": "a page is allocated that is allocated already",
    "wrong_order": "a block is freed with another order than it was allocated with",
    "inside": "a page inside another block is freed, and the block stays in use",
    "others": "a free takes pages of another block with it",
    "misaligned": "a block begins where none of its order can",
    "impossible_order": "an order of MAX_ORDER or more",
    "listed_in_use": "the allocator lists a page as free that is allocated",
    "free_missing": "mm_page_free_batched, without the mm_page_free that goes with it",
    "unlisted": "a page is allocated that the allocator's lists have not given, or that came off them as another block",
    "undrained": "pages leave the allocator's lists that had not come back to them, or come back twice",
    "out_of_order": "a CPU's clock goes back",
    "incomplete": "the file has other lines than its header tells of",
    "other_start": "the image of the beginning contradicts an event",
    "other_end": "the image of the end shows a page otherwise",
}


@dataclass(frozen=True)
class Finding:
    """A contradiction.

    :ivar line: where it shows; 0 for the end of the trace
    :ivar other: the line that it contradicts; 0 if it contradicts itself
    :ivar pfn: -1 if it is not about a page
    :ivar certain: no events were lost in between, and no pages taken without an event
    """

    kind: str
    line: int
    other: int
    pfn: int
    order: int
    detail: str
    certain: bool = True

    def __str__(self) -> str:
        lines = f"line {self.line}" + (f" and line {self.other}" if self.other else "")
        doubt = "" if self.certain else " (uncertain: pages changed hands unseen)"
        where = f"pfn {self.pfn}: " if self.pfn >= 0 else ""
        return f"{lines if self.line else 'at the end'}: {self.kind}: {where}{self.detail}{doubt}"


@dataclass(frozen=True)
class Leak:
    """Blocks that one task allocated in one way, and that are still allocated at the end."""

    task: str
    gfp: str
    order: int
    blocks: int
    pages: int
    first_line: int
