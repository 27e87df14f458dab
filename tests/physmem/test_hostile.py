# SPDX-License-Identifier: GPL-2.0-only
"""Every parser that ``python -m tools.fuzz`` knows, on its seeds and on a few mutations of each."""

from __future__ import annotations

import random

import pytest

from tools.fuzz.damage import EDIT
from tools.fuzz.targets import TARGETS, Target, attempt

#: Whole machines take longer.
MUTATIONS = {"free-lists": 12, "dump": 6, "kpages": 10, "kdump-bitmap": 20}


def mutated(chance: random.Random, seed: bytes, target: Target) -> bytes:
    """The seed with bytes changed, cut out, repeated; a list of changes is made anew."""
    if target.edit:
        return chance.randbytes(EDIT.size * chance.randrange(1, 40))
    data = bytearray(seed)
    for _ in range(chance.randrange(1, 8)):
        at = chance.randrange(len(data) + 1)
        action = chance.random()
        if action < 0.6 and at < len(data):
            data[at] = chance.choice([0, 1, 0x7F, 0x80, 0xFF, chance.randrange(256)])
        elif action < 0.75:
            data[at : at + 8] = chance.choice([bytes(8), b"\xff" * 8, b"\0\0\0\0\0\0\0\x80", chance.randbytes(8)])
        elif action < 0.85:
            del data[at : at + chance.randrange(1, 5000)]
        else:
            data[at:at] = data[at : at + chance.randrange(1, 200)]
    return bytes(data[: target.room])


@pytest.mark.parametrize("name", TARGETS)
def test_mutations_are_read_or_refused(name: str) -> None:
    target = TARGETS[name]
    run = target.make()
    seeds = target.seeds()
    for seed in seeds:
        attempt(run, seed)
    chance = random.Random(name)
    for number in range(MUTATIONS.get(name, 150)):
        attempt(run, mutated(chance, seeds[number % len(seeds)], target))


def test_another_exception_is_a_finding() -> None:
    def parser(data: bytes) -> None:
        raise IndexError("what a fuzzer is for")

    with pytest.raises(IndexError):
        attempt(parser, b"")
