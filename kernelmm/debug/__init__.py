# SPDX-License-Identifier: GPL-2.0-only
"""Debugging aids of the page allocator: what CONFIG_DEBUG_PAGEALLOC, PAGE_POISONING, PAGE_OWNER and
KMEMCHECK bring.

They are options of a kernel's build and of its command line (:class:`~kernelmm.debug.options.Debug`); all that
they know is in the machine's memory.
"""

from __future__ import annotations
