# SPDX-License-Identifier: GPL-2.0-only
"""What the core calls of memory pressure, though it stands below: hung on ``mm.pressure``.

The core asks for these on rare paths only: when zone_reclaim_mode is on, when page cache is
allocated to be written, and when a page on an LRU list loses its last reference.
"""

from __future__ import annotations

from kernelmm.pressure.lru import page_cache_release
from kernelmm.pressure.reclaim import zone_allows_reclaim, zone_reclaim
from kernelmm.pressure.writeback import zone_dirty_ok

__all__ = ["page_cache_release", "zone_allows_reclaim", "zone_dirty_ok", "zone_reclaim"]
