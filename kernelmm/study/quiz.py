# SPDX-License-Identifier: GPL-2.0-only
"""Exercises on a small machine, with answers that the code itself gives.

A quiz is made from a seed: a machine is booted, used for a while, and asked about.  What a
question tells of the machine is read from its memory; its answers are what the allocator, or
the page walk, does when it is really called.  The same seed gives the same quiz.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from random import Random
from typing import Any

from kernelmm import gfp
from kernelmm.machine import Machine
from physmem.errors import UsageError

__all__ = ["KINDS", "Lab", "Question", "Quiz", "make_quiz"]

#: Questions that a quiz has at most: a sheet, not a book.
MAX_QUESTIONS = 100
_MEMORY = "160M"
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


Maker = Callable[[Lab, Random], Question]


def _kinds() -> dict[str, tuple[str, Maker]]:
    from kernelmm.study import quiz_free, quiz_translate, quiz_zone

    return {
        "translate": ("Addresses: from bits to a page frame, as the processor and the kernel go", quiz_translate.make),
        "buddy": ("The buddy system: which blocks grow together when one is freed", quiz_free.make_buddy),
        "watermark": ("Watermarks: may this zone give a block away?", quiz_zone.make),
        "freepath": ("The way of a free: which functions run, and where the page ends up", quiz_free.make_path),
    }


#: The kinds of quizzes there are.
KINDS = ("translate", "buddy", "watermark", "freepath")


def make_quiz(kind: str, seed: int, count: int = 5) -> Quiz:
    """Make a quiz.

    :param kind: one of :data:`KINDS`; ``freepath`` needs the interpreted engine
    :raises UsageError: there is no such kind, the count cannot be, or the engine cannot be watched
    """
    if kind not in KINDS:
        raise UsageError(f"quiz {kind!r}: there are {', '.join(KINDS)}")
    if not 1 <= count <= MAX_QUESTIONS:
        raise UsageError(f"{count} questions: a quiz has from 1 to {MAX_QUESTIONS}")
    about, maker = _kinds()[kind]
    random = Random(f"{kind} {seed}")
    lab = lively(random)
    return Quiz(kind, seed, about, [maker(lab, random) for _ in range(count)])


def lively(random: Random) -> Lab:
    """A machine that has been used for a while: some of its memory is taken, some was and is free again."""
    machine = Machine.boot(_MEMORY)
    held: list[tuple[int, int]] = []
    for _ in range(400):
        if held and random.random() < 0.45:
            page, order = held.pop(random.randrange(len(held)))
            machine.free_block(page, order)
            continue
        order = random.choice((0, 0, 0, 1, 1, 2, 3, 4))
        got = machine.alloc_pages(random.choice(MOBILITIES), order)
        if got is not None:
            held.append((got, order))
    return Lab(machine, held)
