# SPDX-License-Identifier: GPL-2.0-only
"""The allocator's fast paths, one kernel concept a room, under the kernel's function names.

``page``, ``mmzone``, ``vmstat`` and ``watermark`` look and count; ``buddy`` splits and joins
blocks; ``mobility`` chooses among them; ``pcp`` keeps single pages at hand; ``alloc`` and ``free``
are the two directions; ``slowpath`` is what remains when ``alloc`` finds nothing, and ``entry``
is where callers come in.  Each room imports only rooms named before it.
"""
