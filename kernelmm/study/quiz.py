# SPDX-License-Identifier: GPL-2.0-only
"""Exercises on a small machine, with answers that the code itself gives.

A quiz is made from a seed: a machine is booted, used for a while, and asked about.  What a
question tells of the machine is read from its memory; its answers are what the allocator, or
the page walk, does when it is really called.  The same seed gives the same quiz.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from kernelmm.machine import Machine
from kernelmm.study import quiz_free, quiz_translate, quiz_zone
from kernelmm.study.quiz_model import MOBILITIES, Lab, Question, Quiz
from physmem.errors import UsageError
from physmem.structs.linux_4_0.config import MODELS, NUMA, SMP

__all__ = ["KINDS", "Lab", "Question", "Quiz", "make_quiz"]

#: Questions that a quiz has at most: a sheet, not a book.
MAX_QUESTIONS = 100
_MEMORY = "160M"


Maker = Callable[[Lab, Random], Question]


def _kinds() -> dict[str, tuple[str, Maker]]:
    return {
        "translate": ("Addresses: from bits to a page frame, as the processor and the kernel go", quiz_translate.make),
        "buddy": ("The buddy system: which blocks grow together when one is freed", quiz_free.make_buddy),
        "watermark": ("Watermarks: may this zone give a block away?", quiz_zone.make),
        "freepath": ("The way of a free: which functions run, and where the page ends up", quiz_free.make_path),
    }


#: The kinds of quizzes there are.
KINDS = ("translate", "buddy", "watermark", "freepath")


def make_quiz(kind: str, seed: int, count: int = 5, model: str = MODELS[0]) -> Quiz:
    """Make a quiz.

    :param kind: one of :data:`KINDS`; ``freepath`` needs the interpreted engine
    :param model: the memory model of the machine's kernel
    :raises UsageError: there is no such kind, the count cannot be, or the engine cannot be watched
    """
    if kind not in KINDS:
        raise UsageError(f"quiz {kind!r}: there are {', '.join(KINDS)}")
    if not 1 <= count <= MAX_QUESTIONS:
        raise UsageError(f"{count} questions: a quiz has from 1 to {MAX_QUESTIONS}")
    about, maker = _kinds()[kind]
    random = Random(f"{kind} {seed}")
    lab = lively(random, model)
    return Quiz(kind, seed, about, [maker(lab, random) for _ in range(count)])


def lively(random: Random, model: str = MODELS[0]) -> Lab:
    """A machine that has been used for a while: some of its memory is taken, some was and is free again."""
    machine = Machine.boot(_MEMORY, kernel=(SMP if model == "flatmem" else NUMA).with_model(model))
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
