# SPDX-License-Identifier: GPL-2.0-only
"""Linux 4.0's page allocator, running on the bytes of an emulated or a real machine's memory."""

from __future__ import annotations

import physmem  # noqa: F401  (decides, before any hot room is imported, which engine runs)
