# SPDX-License-Identifier: GPL-2.0-only
"""Which debugging aids a machine is booted with."""

from __future__ import annotations

from dataclasses import dataclass

from kernelmm.bringup.kernel import Kernel
from kernelmm.bringup.printk import printk
from physmem import abi
from physmem.errors import UsageError
from physmem.structs.linux_4_0 import Config

__all__ = ["NO_DEBUG", "Debug", "early_params"]


@dataclass(frozen=True)
class Debug:
    """The part of a kernel's command line that debugs its page allocator.

    :ivar debug_pagealloc: frames that are free have no mapping (``debug_pagealloc=on``)
    :ivar guardpage_minorder: with debug_pagealloc, blocks of smaller orders stay idle beside those that were split for
        an allocation, and have no mapping either (``debug_guardpage_minorder=``, at most 5)
    :ivar page_poisoning: with or without debug_pagealloc: frames that are free keep their mapping but are filled with
        a pattern, which is compared when they are allocated (CONFIG_PAGE_POISONING)
    :ivar page_owner: note who allocates a page (``page_owner=on``)
    :ivar kmemcheck: watch every access to pages that the kernel allocates for itself: 1, or 2 until the first error, or
        0 not yet (``kmemcheck=``, in place of debug_pagealloc); None: the kernel cannot
    """

    debug_pagealloc: bool = False
    guardpage_minorder: int = 0
    page_poisoning: bool = False
    page_owner: bool = False
    kmemcheck: int | None = None

    @property
    def pagealloc(self) -> bool:
        """``debug_pagealloc_enabled()``: something is to be done to frames that are free."""
        return self.debug_pagealloc or self.page_poisoning

    def __bool__(self) -> bool:
        return self.pagealloc or self.page_owner or self.kmemcheck is not None

    def build(self, kernel: Config) -> Config:
        """The build of this kernel that has the aids.

        :raises UsageError: the options contradict each other
        """
        if not 0 <= self.guardpage_minorder <= abi.MAX_ORDER // 2:
            raise UsageError(
                f"debug_guardpage_minorder={self.guardpage_minorder}: must be from 0 to {abi.MAX_ORDER // 2}"
            )
        if self.guardpage_minorder and not self.pagealloc:
            raise UsageError("debug_guardpage_minorder needs debug_pagealloc")
        if self.kmemcheck is not None:
            if self.pagealloc:
                raise UsageError("kmemcheck: a kernel has either that or debug_pagealloc")
            if not -(1 << 31) <= self.kmemcheck < 1 << 31:
                raise UsageError(f"kmemcheck={self.kmemcheck}: must be an int: 0, 1, or 2")
        if self.pagealloc or self.page_owner:
            kernel = kernel.with_debug()
        return kernel if self.kmemcheck is None else kernel.with_kmemcheck()


#: No aids at all.
NO_DEBUG = Debug()


def early_params(kernel: Kernel, debug: Debug) -> None:
    """``early_debug_pagealloc``, ``debug_guardpage_minorder_setup``, ``early_page_owner_param`` and
    ``param_kmemcheck``: into memory.
    """
    if debug.kmemcheck is not None:
        kernel.set_var("kmemcheck_enabled", debug.kmemcheck)
    if "page_owner_inited" not in kernel.symbols:
        return
    kernel.set_var("_debug_pagealloc_enabled", debug.pagealloc)
    kernel.set_var("page_poisoning_built", debug.page_poisoning)
    kernel.set_var("page_owner_disabled", not debug.page_owner)
    if debug.guardpage_minorder:
        kernel.set_var("_debug_guardpage_minorder", debug.guardpage_minorder)
        printk(kernel, f"Setting debug_guardpage_minorder to {debug.guardpage_minorder}")
