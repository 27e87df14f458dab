# SPDX-License-Identifier: GPL-2.0-only
"""Mappings that are computed as far as they are looked at, of which layouts are made."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TypeVar

__all__ = ["Lazy", "Overlay"]

T = TypeVar("T")


class Lazy(Mapping[str, T]):
    """A mapping whose values are made when they are asked for, once.

    :param make: gives the value for a name, or None
    :param names: all names, for who wants to see them
    """

    def __init__(self, make: Callable[[str], T | None], names: Callable[[], Iterator[str]]) -> None:
        self._make = make
        self._names = names
        self._made: dict[str, T | None] = {}

    def __getitem__(self, name: str) -> T:
        if name not in self._made:
            self._made[name] = self._make(name)
        value = self._made[name]
        if value is None:
            raise KeyError(name)
        return value

    def __iter__(self) -> Iterator[str]:
        return self._names()

    def __len__(self) -> int:
        return sum(1 for _ in self._names())


class Overlay(Mapping[str, T]):
    """Two mappings; where both have a name, the upper one's value."""

    def __init__(self, upper: Mapping[str, T], lower: Mapping[str, T]) -> None:
        self._upper = upper
        self._lower = lower

    def __getitem__(self, name: str) -> T:
        return self._upper[name] if name in self._upper else self._lower[name]

    def __iter__(self) -> Iterator[str]:
        yield from self._upper
        yield from (name for name in self._lower if name not in self._upper)

    def __len__(self) -> int:
        return sum(1 for _ in self)
