# SPDX-License-Identifier: GPL-2.0-only
"""What a quiz is made of: questions, and the machine that they ask about."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from random import Random
from typing import Any

from kernelmm import gfp
from kernelmm.machine import Machine
from physmem.errors import UsageError

__all__ = ["MOBILITIES", "Lab", "Question", "Quiz"]

MOBILITIES = (gfp.GFP_KERNEL, gfp.GFP_HIGHUSER_MOVABLE, gfp.GFP_TEMPORARY)


@dataclass(frozen=True)
class Question:
    """One question.

    :ivar text: what it is about
    :ivar given: what is known of the machine: a label and a value each
    :ivar asks: what is asked
    :ivar answers: an answer to each
    :ivar worked: how to get there
    :ivar facts: what is given, as data
    :ivar solution: the answers, as data
    """

    text: str
    given: list[tuple[str, str]]
    asks: list[str]
    answers: list[str]
    worked: list[str]
    facts: dict[str, Any] = field(default_factory=dict)
    solution: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Quiz:
    """Some questions.

    :ivar kind: one of :data:`KINDS`
    :ivar about: what all its questions share
    """

    kind: str
    seed: int
    about: str
    questions: list[Question]

    def to_json(self, *, answers: bool) -> dict[str, Any]:
        """As JSON has it; without the answers unless they are asked for."""
        data = asdict(self)
        if not answers:
            for question in data["questions"]:
                for name in ("answers", "worked", "solution"):
                    del question[name]
        return data

    def _repr_html_(self) -> str:
        from kernelmm.study.quiz_show import fragment

        return fragment(self, answers=False)

    def __str__(self) -> str:
        from kernelmm.study.quiz_show import text

        return "\n".join(text(self, answers=False))


@dataclass(frozen=True)
class Lab:
    """The machine that is asked about.

    :ivar held: what is allocated on it: ``struct page *`` and order
    """

    machine: Machine
    held: list[tuple[int, int]]

    def take(self, random: Random, *orders: int) -> tuple[int, int]:
        """A block of one of these orders, to be freed."""
        fitting = [block for block in self.held if block[1] in orders]
        if fitting:
            block = random.choice(fitting)
            self.held.remove(block)
            return block
        order = random.choice(orders)
        page = self.machine.alloc_pages(random.choice(MOBILITIES), order)
        if page is None:
            raise UsageError("the machine has run out of memory: ask for fewer questions")
        return page, order
