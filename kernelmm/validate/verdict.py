# SPDX-License-Identifier: GPL-2.0-only
"""What a judge says of a free."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum, IntEnum

from kernelmm.validate.checks import CHECKS, Check

__all__ = ["Answer", "Fate", "Outcome", "Status", "Verdict"]


class Status(IntEnum):
    """What one check makes of a free; the worst is a verdict's."""

    NOT_ASKED = 0
    OK = 1
    NOTE = 2
    UNKNOWN = 3
    SUSPECT = 4
    WRONG = 5

    @property
    def word(self) -> str:
        """In lower case, for people."""
        return self.name.lower().replace("_", " ")


class Fate(Enum):
    """What a kernel does with a free."""

    NOTHING = "does nothing"
    KEPT = "drops a reference, others remain"
    FREED = "frees the block"
    MISCOUNTED = "counts below zero, frees nothing"
    REFUSED = "reports bad pages, loses the block"
    BUG = "stops at an assertion"
    FAULT = "faults"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Answer:
    """What one check says."""

    check: str
    status: Status
    detail: str


@dataclass(frozen=True)
class Outcome:
    """What the kernel would do.

    :ivar text: the kernel's own words: an assertion, or the reason of its first report; empty if it says nothing
    :ivar where: source file of the assertion, and the line in Linux 4.0: later ones move with every stable release
    :ivar bad: the pages it reports, with the reason
    :ivar effect: in words
    :ivar later: when and how the damage would surface
    """

    fate: Fate
    effect: str
    text: str = ""
    where: str = ""
    bad: tuple[tuple[int, str], ...] = ()
    later: tuple[str, ...] = ()

    def as_json(self) -> dict[str, object]:
        """Plain values."""
        return {
            "fate": self.fate.name.lower(),
            "effect": self.effect,
            "text": self.text,
            "where": self.where,
            "bad_pages": [{"pfn": pfn, "reason": reason} for pfn, reason in self.bad],
            "later": list(self.later),
        }


@dataclass(frozen=True)
class Verdict:
    """All that there is to say of one free.

    :ivar call: the call, as it was asked about
    :ivar pfn: of its page; None if it has none
    :ivar order: that is freed
    :ivar answers: of every check, in the kernel's order
    :ivar plain: what a kernel does that was built without CONFIG_DEBUG_VM
    :ivar debug_vm: what one does that was built with it
    :ivar asked: the checks, as the kernel makes them
    """

    call: str
    pfn: int | None
    order: int
    answers: tuple[Answer, ...]
    plain: Outcome
    debug_vm: Outcome
    asked: Mapping[str, Check] = field(default_factory=lambda: CHECKS)

    @property
    def status(self) -> Status:
        """The worst answer: OK, NOTE, UNKNOWN, SUSPECT or WRONG."""
        return max((answer.status for answer in self.answers), default=Status.OK)

    @property
    def right(self) -> bool:
        """Whether nothing speaks against it."""
        return self.status <= Status.NOTE

    @property
    def found(self) -> tuple[Answer, ...]:
        """The answers that speak against it."""
        return tuple(answer for answer in self.answers if answer.status > Status.NOTE)

    @property
    def checks(self) -> tuple[str, ...]:
        """Names of the checks that speak against it."""
        return tuple(answer.check for answer in self.found)

    def __getitem__(self, check: str) -> Answer:
        """The answer of one check; raises KeyError."""
        for answer in self.answers:
            if answer.check == check:
                return answer
        raise KeyError(check)

    @property
    def reasons(self) -> str:
        """In plain words: what is wrong, and what usually is behind that."""
        if self.right:
            said = [f"{'right' if self.plain.fate is Fate.FREED else 'no error'}: {self.call}"]
            return _sentences([*said, *(answer.detail for answer in self.notes)])
        causes = dict.fromkeys(self.asked[answer.check].cause for answer in self.found)
        return _sentences([*(answer.detail for answer in self.found), *list(causes)[:1]])

    @property
    def explanation(self) -> str:
        """The reasons, and what would follow."""
        said = [f"the kernel {self.plain.effect}", *self.plain.later]
        if self.debug_vm != self.plain:
            said.append(f"with DEBUG_VM it {self.debug_vm.effect}")
        return f"{self.reasons} {_sentences(said)}"

    @property
    def notes(self) -> tuple[Answer, ...]:
        """What is worth a word and no error."""
        return tuple(answer for answer in self.answers if answer.status is Status.NOTE)

    def as_json(self) -> dict[str, object]:
        """Plain values."""
        return {
            "call": self.call,
            "pfn": self.pfn,
            "order": self.order,
            "verdict": self.status.word,
            "right": self.right,
            "checks": [
                {"check": a.check, "status": a.status.word, "detail": a.detail, "asked": self.asked[a.check].asked}
                for a in self.answers
            ],
            "kernel": self.plain.as_json(),
            "kernel_debug_vm": self.debug_vm.as_json(),
            "explanation": self.explanation,
        }


def _sentences(parts: Iterable[str]) -> str:
    return " ".join(f"{part[:1].upper()}{part[1:].rstrip('.')}." for part in parts)
