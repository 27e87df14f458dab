# SPDX-License-Identifier: GPL-2.0-only
"""Many memory images looked at: a :class:`Record` of each, on all cores or on a Dask cluster.

What goes wrong with an image, even the end of the process that reads it, is told in its record.
"""

from __future__ import annotations

from physmem.fleet.cluster import on_cluster
from physmem.fleet.find import Found, find
from physmem.fleet.local import locally
from physmem.fleet.record import Options, Record, ZoneRecord, look_at

__all__ = ["Found", "Options", "Record", "ZoneRecord", "find", "locally", "look_at", "on_cluster"]
