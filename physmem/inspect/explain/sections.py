# SPDX-License-Identifier: GPL-2.0-only
"""An explained address as what a person reads, in the order in which it is found out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from physmem.inspect.explain.show import Section

if TYPE_CHECKING:
    from physmem.inspect.explain import AddressExplanation, Frame

__all__ = ["sections"]


def sections(found: AddressExplanation) -> list[Section]:
    """All parts of the explanation."""
    parts = [_bits(found)]
    if found.levels:
        parts.append(_walk(found))
    if found.problem is not None or found.advice:
        notes = [] if found.problem is None else [found.problem]
        title = "It leads nowhere" if found.verdict != "mapped" else "Mind"
        parts.append(Section(title, notes=(*notes, *found.advice), mark="bad" if found.verdict != "mapped" else "note"))
    if found.walked is not None or found.by_region is not None:
        parts.append(_physical(found))
    if found.frame is not None:
        parts += [_frame(found.frame), _struct_page(found.frame)]
        if found.frame.flags is not None:
            parts.append(_flags(found.frame, found.frame.flags))
        parts.append(_back(found, found.frame))
    return parts


def _bits(found: AddressExplanation) -> Section:
    notes = [found.place]
    if found.describes:
        notes.append(found.describes)
    return Section(f"Its bits, for page tables of {found.nr_levels} levels", bits=found.fields, notes=tuple(notes))


def _walk(found: AddressExplanation) -> Section:
    rows = []
    for level in found.levels:
        step = level.step
        rows.append(
            (
                step.level,
                str(step.index),
                f"{step.table:#x} + 8*{step.index} = {step.at:#x}",
                f"{level.raw:016x}",
                " ".join(level.names) or "-",
                level.leads_to,
            )
        )
    legend = {flag.name: flag for level in found.levels for flag in level.flags if flag.set}
    notes = ["; ".join(f"{flag.name} (bit {flag.bit}) {flag.meaning}" for flag in legend.values())] if legend else []
    if found.access:
        notes.append(f"all levels together: {found.access}")
    return Section(
        f"The walk, from the top table at physical {found.pgd:#x}",
        columns=("level", "index", "entry at", "entry", "flags", "leads to"),
        rows=tuple(rows),
        notes=tuple(notes),
    )


def _physical(found: AddressExplanation) -> Section:
    rows = []
    if found.walked is not None:
        offset = found.fields[-1].value
        base = found.walked - offset
        rows.append(("by the walk", f"page + offset = {base:#x} + {offset:#x}", f"{found.walked:#x}"))
    if found.by_region is not None and found.shortcut is not None:
        rows.append(("by subtraction", found.shortcut, f"{found.by_region:#x}"))
    notes = {None: (), True: ("both agree",), False: ("they do NOT agree: the page tables are right",)}[found.agree]
    return Section("Physical address", columns=("", "computation", "physical"), rows=tuple(rows), notes=notes)


def _frame(frame: Frame) -> Section:
    presence = "in" if frame.in_image else "absent from"
    rows = [
        ("pfn", f"phys >> 12 = {frame.phys:#x} >> 12", f"{frame.pfn} ({frame.pfn:#x}), {presence} the image"),
    ]
    section = frame.section
    if section is not None:
        rows.append(("section", f"pfn >> {section.shift} = {frame.pfn} >> {section.shift}", f"{section.nr}"))
        where = f"mem_section[{section.root}][{section.index}]"
        if section.at is not None:
            where += f" at {section.at:#x}"
        if section.raw is not None:
            value = f"{section.raw:#x}: {section.mem_map:#x}, {'|'.join(section.flags) or 'no flags'}"
        else:
            value = section.problem or ""
        rows.append(("section_mem_map", where, value))
    return Section("Page frame", columns=("", "computation", "value"), rows=tuple(rows))


def _struct_page(frame: Frame) -> Section:
    rows = tuple(
        (
            f"{model.model}{' *' if model.own else ''}",
            model.forward,
            "-" if model.page is None else f"{model.page:016x}",
        )
        for model in frame.models
    )
    own = next(model.model for model in frame.models if model.own)
    notes = ["* the model that this kernel is built for"]
    if own != "FLATMEM":
        notes.append("FLATMEM is computed as if mem_map were where this kernel has its page array")
    pages = {model.page for model in frame.models if model.page is not None}
    if len(pages) == 1:
        notes.append("all models that can be computed here agree")
    if frame.problem:
        notes.append(frame.problem)
    return Section(
        "Its struct page, by each memory model", columns=("model", "computation", "page"), rows=rows, notes=tuple(notes)
    )


def _flags(frame: Frame, flags: int) -> Section:
    notes = [f"page->flags = {flags:#018x}; flags set: {'|'.join(frame.flag_names) or 'none'}"]
    for name, value in (("node", frame.node), ("zone", frame.zone)):
        field = next((each for each in frame.flags_fields if each.name == name), None)
        if field is None:
            if name == "node":
                notes.append("node: this kernel has one only, and no bits for it")
            continue
        mask = (1 << field.width) - 1
        named = "" if name == "node" else f": {value}"
        notes.append(f"{name} = flags >> {field.low} & {mask:#x} = {field.value}{named}")
    return Section("Node and zone, from the flags word", bits=frame.flags_fields, notes=tuple(notes))


def _back(found: AddressExplanation, frame: Frame) -> Section:
    rows = [(f"page_to_pfn, {m.model}{' *' if m.own else ''}", m.back, str(m.pfn)) for m in frame.models if m.page]
    base = frame.phys & -4096
    rows.append(
        (
            "page_address",
            f"PAGE_OFFSET + (pfn << 12) = {found.page_offset:#x} + {base:#x}",
            f"{found.page_offset + base:016x}",
        )
    )
    offset = frame.phys & 4095
    if frame.back == found.va:
        notes: tuple[str, ...] = (f"plus the offset {offset:#x} in the page: the address we began with",)
    else:
        notes = (f"plus the offset {offset:#x} in the page: {frame.back:016x}, the same byte in the direct map",)
    return Section("And back", columns=("", "computation", "value"), rows=tuple(rows), notes=notes)
