# SPDX-License-Identifier: GPL-2.0-only
"""Rounding, under the kernel's names (include/linux/kernel.h)."""

from __future__ import annotations

__all__ = ["div_round_up", "round_down", "round_up"]


def round_up(value: int, size: int) -> int:
    """The least multiple of ``size`` that is not below ``value``."""
    return -(-value // size) * size


def round_down(value: int, size: int) -> int:
    """The greatest multiple of ``size`` that is not above ``value``."""
    return value // size * size


def div_round_up(value: int, size: int) -> int:
    """How many pieces of ``size`` hold ``value``."""
    return -(-value // size)
