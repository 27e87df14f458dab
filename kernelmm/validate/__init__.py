# SPDX-License-Identifier: GPL-2.0-only
"""Is this free right?  A verdict on one call without making it, and on all the frees of a trace.

``judge`` reads the memory that a free would read, in the order in which the kernel would, and says what each
check makes of it; nothing changes.  ``trace`` and its neighbours follow a recording of a kernel's allocations
and frees, and say where it contradicts itself.
"""

from __future__ import annotations
