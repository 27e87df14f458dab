# SPDX-License-Identifier: GPL-2.0-only
"""On the way to sleep, no allocation may do I/O (mm/page_alloc.c).

The kernel keeps the mask that it replaces in a static variable; here the caller keeps it.
"""

from __future__ import annotations

from kernelmm import gfp
from kernelmm.core.mm import Mm

__all__ = ["pm_restore_gfp_mask", "pm_restrict_gfp_mask", "pm_suspended_storage"]


def pm_restrict_gfp_mask(mm: Mm) -> int:
    """``pm_restrict_gfp_mask``: take __GFP_IO and __GFP_FS out of ``gfp_allowed_mask``; the mask as it was."""
    saved = mm.as_u32[mm.var_gfp_allowed_mask >> 2]
    mm.as_u32[mm.var_gfp_allowed_mask >> 2] = saved & ~gfp.GFP_IOFS
    return saved


def pm_restore_gfp_mask(mm: Mm, saved: int) -> None:
    """``pm_restore_gfp_mask``: awake again."""
    mm.as_u32[mm.var_gfp_allowed_mask >> 2] = saved


def pm_suspended_storage(mm: Mm) -> bool:
    """``pm_suspended_storage``: whether I/O is forbidden now."""
    return mm.as_u32[mm.var_gfp_allowed_mask >> 2] & gfp.GFP_IOFS != gfp.GFP_IOFS
