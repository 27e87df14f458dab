# SPDX-License-Identifier: GPL-2.0-only
"""What a check found, and what it could not look at."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

__all__ = ["MAX_LISTED", "Finding", "Inapplicable", "Report"]

#: Findings of one rule that are kept; more are counted.
MAX_LISTED = 100_000


class Inapplicable(Exception):
    """A rule has no meaning for this kernel, and why."""


@dataclass(frozen=True)
class Finding:
    """Something that cannot be so.

    :ivar rule: name of the rule that is broken
    :ivar detail: the values that break it
    :ivar pfn: the page concerned, if there is one
    """

    rule: str
    detail: str
    pfn: int | None = None

    def __str__(self) -> str:
        where = "" if self.pfn is None else f"pfn {self.pfn}: "
        return f"{where}{self.rule}: {self.detail}"


@dataclass
class Report:
    """The result of a check.

    :ivar findings: everything that is wrong
    :ivar counts: how often each rule is broken, which is more than its findings if those are very many
    :ivar not_checked: by rule, why it was not (or not everywhere) looked at
    :ivar not_applicable: by rule, why it has no meaning for this kernel
    """

    findings: list[Finding] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    not_checked: dict[str, list[str]] = field(default_factory=dict)
    not_applicable: dict[str, str] = field(default_factory=dict)

    @property
    def clean(self) -> bool:
        """Nothing is wrong, as far as could be seen."""
        return not self.counts

    def add(self, rule: str, detail: str, pfn: int | None = None) -> None:
        """Something is wrong."""
        self.counts[rule] = self.counts.get(rule, 0) + 1
        if self.counts[rule] <= MAX_LISTED:
            self.findings.append(Finding(rule, detail, pfn))

    def add_once(self, rule: str, detail: str) -> None:
        """Something is wrong that several rules may come across."""
        if Finding(rule, detail) not in self.findings:
            self.add(rule, detail)

    def add_pages(self, rule: str, pfns: npt.NDArray[np.int64], details: Iterable[str]) -> None:
        """The same is wrong with some pages; the details are asked for as far as they are kept."""
        count = self.counts.get(rule, 0)
        if len(pfns):
            self.counts[rule] = count + len(pfns)
            kept = pfns[: max(0, MAX_LISTED - count)].tolist()
            self.findings += [Finding(rule, detail, pfn) for pfn, detail in zip(kept, details, strict=False)]

    def skip(self, rules: Iterable[str], reason: str) -> None:
        """These rules could not be looked at, or not everywhere."""
        for rule in rules:
            reasons = self.not_checked.setdefault(rule, [])
            if reason not in reasons:
                reasons.append(reason)
