# SPDX-License-Identifier: GPL-2.0-only
"""The allocator's fast paths, one kernel concept a room, under the kernel's function names.

``page``, ``mmzone``, ``vmstat`` and ``watermark`` look and count; ``buddy`` splits and joins
blocks; ``mobility`` chooses among them; ``pcp`` keeps single pages at hand; ``alloc`` and ``free``
are the two directions; ``entry`` is where callers come in.  What remains when ``alloc`` finds nothing
is in :mod:`kernelmm.pressure`.  Each room imports only rooms named before it.
"""
