# SPDX-License-Identifier: GPL-2.0-only
"""A machine's physical memory, laid out byte for byte as Linux lays it out.

From the ground up: :mod:`~physmem.ram` holds the bytes, :mod:`~physmem.structs` says what they
mean, :mod:`~physmem.space` and :mod:`~physmem.address` turn addresses into each other,
:mod:`~physmem.image` opens and writes memory images, :mod:`~physmem.dump` puts them together,
and :mod:`~physmem.inspect` answers what a person asks.  ``kernelmm`` runs an allocator on top;
nothing here needs it.
"""

from __future__ import annotations

from physmem import engine

engine.install()
