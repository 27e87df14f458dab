# SPDX-License-Identifier: GPL-2.0-only
"""Records as the rows of one table, and back: what a survey writes as Parquet.

The column ``kind`` says what a row is: ``dump`` (one of each image), ``zone``, ``rule`` (a rule that
is broken, with how often, or that was not looked at, with why) or ``finding``.  Every row has the
first columns, which say of which image it is; of the others it has those of its kind, the rest is null.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields
from typing import Any

from physmem.fleet.record import Record, ZoneRecord

__all__ = ["COLUMNS", "TYPES", "records", "rows"]

_IMAGE = {"path": "string", "size": "int64", "mtime_ns": "int64"}
_DUMP = {
    "error": "string",
    "seconds": "double",
    "release": "string",
    "format": "string",
    "cpus": "int64",
    "nodes": "int64",
    "bytes": "int64",
    "pages": "int64",
    "absent_pages": "int64",
    "absent_struct_pages": "int64",
    "checked": "int64",
    "found": "int64",
}
_ZONE = {
    "node": "int64",
    "zone": "string",
    "start_pfn": "int64",
    "spanned": "int64",
    "present": "int64",
    "managed": "int64",
    "free": "int64",
    "watermarks": "list<int64>",
    "nr_free": "list<int64>",
    "unusable_index": "list<double>",
    "extfrag_index": "list<double>",
}
_RULE = {"rule": "string", "count": "int64", "pfn": "int64", "detail": "string"}

#: The type of each column, as Arrow names it.
TYPES: Mapping[str, str] = {"kind": "string", **_IMAGE, **_DUMP, **_ZONE, **_RULE}
COLUMNS = tuple(TYPES)

assert [each.name for each in fields(ZoneRecord)] == list(_ZONE)


def rows(record: Record) -> Iterator[tuple[object, ...]]:
    """The rows of an image, as :data:`COLUMNS` has them."""
    image = {name: getattr(record, name) for name in _IMAGE}

    def row(kind: str, **cells: object) -> tuple[object, ...]:
        known = {"kind": kind, **image, **cells}
        return tuple(known.get(name) for name in COLUMNS)

    about = {name: getattr(record, name) for name in _DUMP if name != "found"}
    yield row("dump", **about, found=None if record.counts is None else sum(record.counts.values()))
    for zone in record.zones:
        yield row("zone", **{name: getattr(zone, name) for name in _ZONE})
    for rule, count in (record.counts or {}).items():
        yield row("rule", rule=rule, count=count)
    for rule, why in record.not_checked.items():
        yield row("rule", rule=rule, detail=why)
    for rule, pfn, detail in record.findings:
        yield row("finding", rule=rule, pfn=pfn, detail=detail)


def records(table: Iterable[Mapping[str, Any]]) -> dict[str, Record]:
    """The records of a table that :func:`rows` wrote, by path, given its rows as dictionaries.

    :raises KeyError: it is another table; ValueError likewise
    """
    found: dict[str, Record] = {}
    for row in table:
        kind, path = row["kind"], row["path"]
        if kind == "dump":
            about = {name: row[name] for name in (*_IMAGE, *_DUMP) if name != "found"}
            found[path] = Record(**about, counts=None if row["found"] is None else {})
            continue
        record = found[path]
        if kind == "zone":
            cells: dict[str, Any] = {name: row[name] for name in _ZONE}
            lists = {name: tuple(cell) for name, cell in cells.items() if isinstance(cell, list)}
            record.zones.append(ZoneRecord(**(cells | lists)))
        elif kind == "finding":
            record.findings.append((row["rule"], row["pfn"], row["detail"]))
        elif kind == "rule" and row["count"] is None:
            record.not_checked[row["rule"]] = row["detail"]
        elif kind == "rule" and record.counts is not None:
            record.counts[row["rule"]] = row["count"]
        else:
            raise ValueError(f"a row of kind {kind}")
    return found
