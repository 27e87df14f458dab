# SPDX-License-Identifier: GPL-2.0-only
"""An explained address as JSON: counts and PFNs are numbers, addresses and words of bits are strings."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from physmem.inspect.explain import AddressExplanation, Frame
    from physmem.inspect.explain.entries import Level

__all__ = ["as_json"]


def as_json(found: AddressExplanation) -> dict[str, Any]:
    """All that is known."""
    return {
        "va": _hex(found.va),
        "verdict": found.verdict,
        "region": found.region,
        "place": found.place,
        "problem": found.problem,
        "advice": list(found.advice),
        "levels": found.nr_levels,
        "fields": [field.to_json() for field in found.fields],
        "pgd": _hex(found.pgd),
        "walk": [_level(level) for level in found.levels],
        "access": found.access,
        "page_size": found.page_size,
        "walked": _hex(found.walked),
        "shortcut": found.shortcut,
        "by_region": _hex(found.by_region),
        "agree": found.agree,
        "describes": found.describes,
        "frame": None if found.frame is None else _frame(found.frame),
    }


def _hex(value: int | None) -> str | None:
    return None if value is None else f"{value:#x}"


def _level(level: Level) -> dict[str, Any]:
    step = level.step
    return {
        "level": step.level,
        "table": _hex(step.table),
        "index": step.index,
        "at": _hex(step.at),
        "entry": _hex(level.raw),
        "present": step.is_present,
        "leaf": step.is_present and step.is_leaf,
        "leads_to": level.leads_to,
        "names": level.names,
        "flags": [asdict(flag) for flag in level.flags],
    }


def _frame(frame: Frame) -> dict[str, Any]:
    section = None
    if frame.section is not None:
        section = asdict(frame.section)
        for name in ("at", "raw", "mem_map"):
            section[name] = _hex(section[name])
    return {
        "phys": _hex(frame.phys),
        "pfn": frame.pfn,
        "in_image": frame.in_image,
        "section": section,
        "models": [asdict(model) | {"page": _hex(model.page)} for model in frame.models],
        "page": _hex(frame.page),
        "flags": _hex(frame.flags),
        "flags_fields": [field.to_json() for field in frame.flags_fields],
        "flag_names": list(frame.flag_names),
        "node": frame.node,
        "zone": frame.zone,
        "problem": frame.problem,
        "page_address": _hex(frame.back),
    }
