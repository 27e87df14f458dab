# SPDX-License-Identifier: GPL-2.0-only
"""What a survey keeps of one image: plain values, which go from process to process."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from physmem.dump import Dump, open_dump
from physmem.errors import PhysmemError
from physmem.fleet.find import Found
from physmem.inspect.check import RULES, check
from physmem.inspect.fragmentation import fragmentation_index, unusable_index
from physmem.inspect.info import info
from physmem.inspect.zones import Zone, populated_zones

__all__ = ["Options", "Record", "ZoneRecord", "look_at"]


@dataclass(frozen=True)
class Options:
    """How images are looked at.

    :ivar layout: a ``layout.json`` for all of them, or None
    :ivar symbols: a ``symbols.json`` for all of them, or None
    :ivar max_findings: findings of each rule that are kept; more are counted
    :ivar vmlinux: the kernel's ``vmlinux`` for all of them, or None
    """

    layout: str | None = None
    symbols: str | None = None
    max_findings: int = 100
    vmlinux: str | None = None


@dataclass(frozen=True)
class ZoneRecord:
    """A populated zone.  Sizes are pages; the lists have an entry of each order.

    :ivar free: NR_FREE_PAGES
    :ivar watermarks: min, low, high
    :ivar nr_free: free blocks
    :ivar unusable_index: part of the free memory that is in smaller blocks, 0 to 1
    :ivar extfrag_index: why an allocation would fail: want of memory (0), fragmentation (1); -1 if it would not
    """

    node: int
    zone: str
    start_pfn: int
    spanned: int
    present: int
    managed: int
    free: int
    watermarks: tuple[int, ...]
    nr_free: tuple[int, ...]
    unusable_index: tuple[float, ...]
    extfrag_index: tuple[float, ...]

    @classmethod
    def of(cls, zone: Zone) -> ZoneRecord:
        """What is kept of a zone."""
        orders = range(len(zone.nr_free))
        return cls(
            node=zone.node,
            zone=zone.name,
            start_pfn=zone.start_pfn,
            spanned=zone.spanned,
            present=zone.present,
            managed=zone.managed,
            free=zone.vm_stat["NR_FREE_PAGES"],
            watermarks=zone.watermark[:3],
            nr_free=zone.nr_free,
            unusable_index=tuple(unusable_index(zone.nr_free, order) / 1000 for order in orders),
            extfrag_index=tuple(fragmentation_index(zone.nr_free, order) / 1000 for order in orders),
        )


@dataclass
class Record:
    """One image, as far as it could be looked at.

    :ivar error: why it could not be looked at, or not all of it; None if it could
    :ivar seconds: that it took
    :ivar release: of the kernel, as ``uname -r`` prints it
    :ivar cpus: how many are online
    :ivar bytes: of memory that are in the image
    :ivar pages: page frames that the zones span
    :ivar absent_pages: those of them that are not in the image
    :ivar absent_struct_pages: pages whose ``struct page`` is not in the image
    :ivar zones: the populated zones, in the order of /proc
    :ivar counts: how often each rule is broken that is; None if nothing was checked
    :ivar findings: what breaks them: rule, PFN or None, the values
    :ivar checked: rules that were looked at everywhere
    :ivar not_checked: by rule, why it was not (or not everywhere) looked at
    """

    path: str
    size: int
    mtime_ns: int
    error: str | None = None
    seconds: float = 0.0
    release: str | None = None
    format: str | None = None
    cpus: int | None = None
    nodes: int | None = None
    bytes: int | None = None
    pages: int | None = None
    absent_pages: int | None = None
    absent_struct_pages: int | None = None
    zones: list[ZoneRecord] = field(default_factory=list)
    counts: dict[str, int] | None = None
    findings: list[tuple[str, int | None, str]] = field(default_factory=list)
    checked: int | None = None
    not_checked: dict[str, str] = field(default_factory=dict)

    @classmethod
    def failed(cls, found: Found, error: str, seconds: float = 0.0) -> Record:
        """An image that could not be looked at at all."""
        return cls(found.path, found.size, found.mtime_ns, " ".join(error.split()), seconds)

    @property
    def clean(self) -> bool:
        """It could be looked at, and nothing was found."""
        return self.error is None and not self.counts


def look_at(found: Found, options: Options) -> Record:
    """Open an image and look at all that a survey tells; never raises, but says what went wrong.

    What can be told is told: when the page array of an image is missing, its zones are there.
    """
    record = Record(found.path, found.size, found.mtime_ns)
    started = time.monotonic()
    errors = []
    try:
        with open_dump(found.path, layout=options.layout, symbols=options.symbols, vmlinux=options.vmlinux) as dump:
            record.format = dump.image.format
            record.release = dump.info.get("OSRELEASE")
            record.bytes = dump.memory.ranges.total()
            for part in _PARTS:
                try:
                    part(record, dump, options)
                except PhysmemError as error:
                    errors.append(str(error))
    except PhysmemError as error:
        errors.append(str(error))
    except MemoryError as error:
        errors.append(f"out of memory: {error}" if str(error) else "out of memory")
    except Exception as error:
        # One image that nobody has thought of is no reason to lose what is known of a thousand others.
        errors.append(f"internal error: {type(error).__name__}: {error}")
    record.error = " ".join("; ".join(dict.fromkeys(errors)).split()) or None
    record.seconds = time.monotonic() - started
    return record


def _zones(record: Record, dump: Dump, options: Options) -> None:
    record.nodes = len(dump.pgdats)
    record.zones = [ZoneRecord.of(zone) for zone in populated_zones(dump)]


def _info(record: Record, dump: Dump, options: Options) -> None:
    told = info(dump)
    record.cpus = None if told.cpus is None else len(told.cpus)
    record.pages = told.pages
    record.absent_pages = told.absent
    record.absent_struct_pages = told.absent_struct_pages


def _check(record: Record, dump: Dump, options: Options) -> None:
    report = check(dump)
    kept: dict[str, int] = {}
    for finding in report.findings:
        kept[finding.rule] = kept.get(finding.rule, 0) + 1
        if kept[finding.rule] <= options.max_findings:
            record.findings.append((finding.rule, finding.pfn, finding.detail))
    record.counts = dict(report.counts)
    record.not_checked = {rule: "; ".join(reasons) for rule, reasons in report.not_checked.items()}
    record.checked = len(RULES.keys() - report.not_checked.keys() - report.not_applicable.keys())


_PARTS: tuple[Callable[[Record, Dump, Options], None], ...] = (_zones, _info, _check)
