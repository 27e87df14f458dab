# SPDX-License-Identifier: GPL-2.0-only
"""The tracepoints of reclaim and compaction in Linux 4.0 (include/trace/events/vmscan.h, compaction.h).

They are not about one page; each has a text of its own.  The pressure rooms call them while ``mm.tracing`` is on,
where the kernel has them; there are no slab caches and no memory cgroups, so theirs are missing.
"""

from __future__ import annotations

from collections.abc import Mapping

from kernelmm import gfp
from kernelmm.core import mmzone
from kernelmm.core.mm import Mm
from kernelmm.pressure import lru
from kernelmm.pressure.deferral import COMPACT_MAX_DEFER_SHIFT
from kernelmm.pressure.fields import Fields
from kernelmm.study.debug_vm import zone_name

__all__ = ["FLAGS", "FORMATS", "PressureEvents"]

_DEFER = "node={nid} zone={zone:<8} order={order} order_failed={order_failed} consider={considered} limit={limit}"
_SUITABLE = "node={nid} zone={zone:<8} order={order} ret={ret}"
_ISOLATED = "range=({start_pfn:#x} ~ {end_pfn:#x}) nr_scanned={nr_scanned} nr_taken={nr_taken}"
_ZONE = (
    "zone_start={zone_start:#x} migrate_pfn={migrate_pfn:#x} free_pfn={free_pfn:#x} zone_end={zone_end:#x}, mode={mode}"
)

#: How the fields of an event are printed.
FORMATS = {
    "mm_vmscan_kswapd_sleep": "nid={nid}",
    "mm_vmscan_kswapd_wake": "nid={nid} order={order}",
    "mm_vmscan_wakeup_kswapd": "nid={nid} zid={zid} order={order}",
    "mm_vmscan_direct_reclaim_begin": "order={order} may_writepage={may_writepage} gfp_flags={gfp_flags}",
    "mm_vmscan_direct_reclaim_end": "nr_reclaimed={nr_reclaimed}",
    "mm_vmscan_lru_isolate": "isolate_mode={isolate_mode} order={order} nr_requested={nr_requested} "
    "nr_scanned={nr_scanned} nr_taken={nr_taken} file={file}",
    "mm_vmscan_lru_shrink_inactive": "nid={nid} zid={zid} nr_scanned={nr_scanned} nr_reclaimed={nr_reclaimed} "
    "priority={priority} flags={flags}",
    "mm_compaction_begin": _ZONE,
    "mm_compaction_end": _ZONE + " status={status}",
    "mm_compaction_isolate_migratepages": _ISOLATED,
    "mm_compaction_isolate_freepages": _ISOLATED,
    "mm_compaction_migratepages": "nr_migrated={nr_migrated} nr_failed={nr_failed}",
    "mm_compaction_try_to_compact_pages": "order={order} gfp_mask={gfp_mask:#x} mode={mode}",
    "mm_compaction_finished": _SUITABLE,
    "mm_compaction_suitable": _SUITABLE,
    "mm_compaction_deferred": _DEFER,
    "mm_compaction_defer_compaction": _DEFER,
    "mm_compaction_defer_reset": _DEFER,
}

#: ftrace's four columns of flags: interrupts are on, but where a lock is held that keeps them off.
FLAGS = dict.fromkeys(FORMATS, "....") | {"mm_vmscan_lru_isolate": "d..1", "mm_vmscan_writepage": "...."}

#: ``compaction_status_string``.
_STATUS = ("deferred", "skipped", "continue", "partial", "complete", "no_suitable_page", "not_suitable_zone")


class PressureEvents:
    """The methods by which reclaim and compaction report their events, under the tracepoints' names."""

    def _record(self, name: str, mm: Mm, page: int, fields: Mapping[str, int | str]) -> None:
        raise NotImplementedError

    # -- mm/vmscan.c ---------------------------------------------------------

    def mm_vmscan_wakeup_kswapd(self, mm: Mm, nid: int, zid: int, order: int) -> None:
        """A sleeping kswapd has been woken by an allocation."""
        self._record("mm_vmscan_wakeup_kswapd", mm, 0, {"nid": nid, "zid": zid, "order": order})

    def mm_vmscan_kswapd_wake(self, mm: Mm, nid: int, order: int) -> None:
        """kswapd begins to balance its node."""
        self._record("mm_vmscan_kswapd_wake", mm, 0, {"nid": nid, "order": order})

    def mm_vmscan_kswapd_sleep(self, mm: Mm, nid: int) -> None:
        """kswapd has nothing more to do."""
        self._record("mm_vmscan_kswapd_sleep", mm, 0, {"nid": nid})

    def mm_vmscan_direct_reclaim_begin(self, mm: Mm, order: int, may_writepage: bool, gfp_mask: int) -> None:
        """A task goes to reclaim memory for itself."""
        fields: dict[str, int | str] = {
            "order": order,
            "may_writepage": int(may_writepage),
            "gfp_flags": gfp.gfp_names(gfp_mask),
        }
        self._record("mm_vmscan_direct_reclaim_begin", mm, 0, fields)

    def mm_vmscan_direct_reclaim_end(self, mm: Mm, nr_reclaimed: int) -> None:
        """It comes back."""
        self._record("mm_vmscan_direct_reclaim_end", mm, 0, {"nr_reclaimed": nr_reclaimed})

    def mm_vmscan_lru_isolate(
        self, mm: Mm, order: int, nr_requested: int, nr_scanned: int, nr_taken: int, isolate_mode: int, file: bool
    ) -> None:
        """Pages were taken off the end of an LRU list."""
        fields = {
            "isolate_mode": isolate_mode,
            "order": order,
            "nr_requested": nr_requested,
            "nr_scanned": nr_scanned,
            "nr_taken": nr_taken,
            "file": int(file),
        }
        self._record("mm_vmscan_lru_isolate", mm, 0, fields)

    def mm_vmscan_lru_shrink_inactive(
        self, mm: Mm, zone: int, nr_scanned: int, nr_reclaimed: int, priority: int, file: bool
    ) -> None:
        """A part of an inactive list was worked off."""
        z = mmzone.zone_off(mm, zone)
        fields: dict[str, int | str] = {
            "nid": mmzone.zone_nid(mm, z),
            "zid": mmzone.zone_idx(mm, zone, z),
            "nr_scanned": nr_scanned,
            "nr_reclaimed": nr_reclaimed,
            "priority": priority,
            "flags": _reclaim_flags(file),
        }
        self._record("mm_vmscan_lru_shrink_inactive", mm, 0, fields)

    def mm_vmscan_writepage(self, mm: Mm, page: int) -> None:
        """Reclaim has handed a dirty page to its device."""
        self._record("mm_vmscan_writepage", mm, page, {"flags": _reclaim_flags(lru.page_is_file_cache(mm, page))})

    # -- mm/compaction.c -----------------------------------------------------

    def mm_compaction_try_to_compact_pages(self, mm: Mm, order: int, gfp_mask: int, mode: int) -> None:
        """A task goes to compact memory for itself."""
        fields = {"order": order, "gfp_mask": gfp_mask, "mode": mode}
        self._record("mm_compaction_try_to_compact_pages", mm, 0, fields)

    def mm_compaction_begin(self, mm: Mm, span: tuple[int, int, int, int], sync: bool) -> None:
        """A zone is compacted; ``span``: PFNs of its start, of the two scanners, and of its end."""
        self._record("mm_compaction_begin", mm, 0, _scanners(span, sync))

    def mm_compaction_end(self, mm: Mm, span: tuple[int, int, int, int], sync: bool, status: int) -> None:
        """It has been; ``status``: COMPACT_*."""
        self._record("mm_compaction_end", mm, 0, {**_scanners(span, sync), "status": _STATUS[status]})

    def mm_compaction_isolate_migratepages(
        self, mm: Mm, start_pfn: int, end_pfn: int, scanned: int, taken: int
    ) -> None:
        """The migration scanner has isolated pages that are in use."""
        self._record("mm_compaction_isolate_migratepages", mm, 0, _isolated(start_pfn, end_pfn, scanned, taken))

    def mm_compaction_isolate_freepages(self, mm: Mm, start_pfn: int, end_pfn: int, scanned: int, taken: int) -> None:
        """The free scanner has isolated free pages."""
        self._record("mm_compaction_isolate_freepages", mm, 0, _isolated(start_pfn, end_pfn, scanned, taken))

    def mm_compaction_migratepages(self, mm: Mm, nr_all: int, failed: int) -> None:
        """Isolated pages have moved, but for some."""
        self._record("mm_compaction_migratepages", mm, 0, {"nr_migrated": nr_all - failed, "nr_failed": failed})

    def mm_compaction_finished(self, mm: Mm, z: int, order: int, status: int) -> None:
        """Whether to go on compacting a zone."""
        self._record("mm_compaction_finished", mm, 0, _of_zone(mm, z, order) | {"ret": _STATUS[status]})

    def mm_compaction_suitable(self, mm: Mm, z: int, order: int, status: int) -> None:
        """Whether compacting a zone makes sense."""
        self._record("mm_compaction_suitable", mm, 0, _of_zone(mm, z, order) | {"ret": _STATUS[status]})

    def mm_compaction_deferred(self, mm: Mm, z: int, order: int) -> None:
        """A request is turned away: compaction was in vain lately."""
        self._record("mm_compaction_deferred", mm, 0, _deferral(mm, z, order))

    def mm_compaction_defer_compaction(self, mm: Mm, z: int, order: int) -> None:
        """Compaction was in vain."""
        self._record("mm_compaction_defer_compaction", mm, 0, _deferral(mm, z, order))

    def mm_compaction_defer_reset(self, mm: Mm, z: int, order: int) -> None:
        """Compaction was not in vain."""
        self._record("mm_compaction_defer_reset", mm, 0, _deferral(mm, z, order))


def _reclaim_flags(file: bool) -> str:
    return f"RECLAIM_WB_{'FILE' if file else 'ANON'}|RECLAIM_WB_ASYNC"


def _scanners(span: tuple[int, int, int, int], sync: bool) -> dict[str, int | str]:
    names = ("zone_start", "migrate_pfn", "free_pfn", "zone_end")
    return {**dict(zip(names, span, strict=True)), "mode": "sync" if sync else "async"}


def _isolated(start_pfn: int, end_pfn: int, scanned: int, taken: int) -> dict[str, int]:
    return {"start_pfn": start_pfn, "end_pfn": end_pfn, "nr_scanned": scanned, "nr_taken": taken}


def _of_zone(mm: Mm, z: int, order: int) -> dict[str, int | str]:
    """Node, name and order, by a zone's physical address."""
    return {"nid": mmzone.zone_nid(mm, z), "zone": zone_name(mm, z), "order": order}


def _deferral(mm: Mm, z: int, order: int) -> dict[str, int | str]:
    fields: Fields = mm.cold
    return _of_zone(mm, z, order) | {
        "order_failed": mm.as_s32[(z + fields.zone_compact_order_failed) >> 2],
        "considered": mm.as_u32[(z + fields.zone_compact_considered) >> 2],
        "limit": 1 << min(mm.as_u32[(z + fields.zone_compact_defer_shift) >> 2], COMPACT_MAX_DEFER_SHIFT),
    }
