# SPDX-License-Identifier: GPL-2.0-only
"""Bring-up: from a memory map to a machine whose pages are free, in the order of Linux 4.0's boot.

Each room is a step, with the kernel's names for its functions; :mod:`kernelmm.boot` calls them in order.
All of them work on a :class:`~kernelmm.bringup.kernel.Kernel`, which may as well be a kernel that was
attached: a step that is repeated there, from the same inputs, leaves every byte as it is.
"""

from __future__ import annotations
