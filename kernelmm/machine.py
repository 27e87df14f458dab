# SPDX-License-Identifier: GPL-2.0-only
"""A machine to allocate memory on: the front door of the package.

A :class:`Machine` is a kernel's memory with the allocator running on it, under the kernel's names.
As in C, a ``struct page *`` is its kernel address and memory is a direct-map address, both plain
integers; what the kernel answers with NULL is None.  What the kernel would not survive raises an
exception (:mod:`physmem.errors`); what it merely complains about is in :meth:`Machine.dmesg`.

It is one long class, as it is one front door: each method is a call into the room that does the work.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from functools import cached_property
from typing import TYPE_CHECKING, Any

from kernelmm import gfp as gfp_bits
from kernelmm.attach import attach
from kernelmm.boot import BootConfig, boot
from kernelmm.bringup.kernel import Kernel
from kernelmm.bringup.printk import log
from kernelmm.bringup.sysctl import SYSCTLS
from kernelmm.core import compound, entry, free, mmzone, pcp

# Inside a class Python would mangle a name with two underscores.
from kernelmm.core.entry import __alloc_pages_nodemask as alloc_pages_from
from kernelmm.core.free import __free_pages as free_struct_pages
from kernelmm.core.mm import Mm
from kernelmm.debug import access
from kernelmm.debug.aids import install
from kernelmm.debug.atomic import AtomicSleep, NoAids
from kernelmm.hardware import Hardware
from kernelmm.page_view import PageView
from kernelmm.study.debug_vm import DebugVm
from kernelmm.study.reporter import Reporter
from physmem import abi, address
from physmem.dump import Dump, open_dump
from physmem.e820 import MemoryMap
from physmem.errors import MEMORY_FAULTS, AddressError, PhysmemError, UsageError, memory_fault
from physmem.ram import Ram

# What a machine can do besides allocating and freeing is loaded when it is asked for.
if TYPE_CHECKING:
    from kernelmm.study.explain_model import Explanation
    from kernelmm.study.faults import FaultAttr
    from kernelmm.study.run import Run
    from kernelmm.study.script import Script
    from kernelmm.study.trace import Event, Tracer
    from kernelmm.validate.history import History
    from kernelmm.validate.verdict import Verdict
    from physmem.image.pieces import Progress
    from physmem.inspect.explain import AddressExplanation

__all__ = ["Machine"]

_Path = str | os.PathLike[str]

THISNODE = gfp_bits.__GFP_THISNODE


class Machine(Hardware):
    """A machine attached to a memory image, or booted.

    :ivar mm: the kernel's view of its memory, which the functions of :mod:`kernelmm.core` take first
    :ivar dump: its memory as an inspector sees it, always up to date
    :ivar console: what collects its messages
    """

    def __init__(self, dump: Dump, mm: Mm | None = None) -> None:
        """Attach to a dump; or take over a kernel that runs already, on the memory that the dump shows."""
        self.mm = attach(dump) if mm is None else mm
        self.dump = dump.over(self.mm.ram)
        self.console = Reporter(dump.layout, self.mm.hz, self.kernel, dump.info.get("OSRELEASE", "4.0.0"))
        self.mm.reporter = self.console
        self.mm.checker = DebugVm(dump.layout, self.console)
        install(self.kernel)
        # The caller's name, in messages: a machine that runs has a process 1.
        self.mm.comm, self.mm.pid = "init", 1

    @classmethod
    def attach(
        cls, path: _Path, layout: _Path | None = None, symbols: _Path | None = None, vmlinux: _Path | None = None
    ) -> Machine:
        """Go on where the machine in a memory image stopped; the image itself is never changed.

        :param layout: a ``layout.json``, for a kernel that is not known here
        :param symbols: a ``symbols.json``
        :param vmlinux: the kernel's ``vmlinux``, in their place
        :raises PhysmemError: the image cannot be opened, understood or run; says why
        """
        dump = open_dump(path, layout=layout, symbols=symbols, vmlinux=vmlinux)
        try:
            return cls(dump)
        except BaseException:
            dump.close()
            raise

    @classmethod
    def boot(cls, memory: MemoryMap | int | str, nodes: int = 1, cpus: int = 1, **options: Any) -> Machine:
        """Boot a machine of our own.

        :param memory: how much it has (``"256M"``, or bytes), or its firmware's memory map (:mod:`physmem.e820`)
        :param nodes: NUMA nodes to split the memory into; a memory map has its own
        :param options: further fields of :class:`~kernelmm.boot.BootConfig`: ``cma=16 << 20``
        :raises UsageError: there cannot be such a machine, or it has too little memory
        """
        if not isinstance(memory, MemoryMap):
            memory = MemoryMap.from_size(memory, nodes)
        booted = boot(BootConfig(memory, cpus, **options))
        machine = cls(booted.dump, booted.mm)
        machine.console.lines += log(booted.kernel)
        return machine

    def close(self) -> None:
        """Let go of the image file.  The machine's memory lives on until it is garbage."""
        self.dump.close()

    def __enter__(self) -> Machine:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __repr__(self) -> str:
        release = self.dump.info.get("OSRELEASE", "?")
        nodes, cpus = len(self.dump.pgdats), self.mm.nr_cpus
        return f"<Machine Linux {release}, {self.dump.max_pfn} pages, {nodes} nodes, {cpus} CPUs>"

    def _repr_html_(self) -> str:
        from kernelmm.study.notebook import machine_html

        return machine_html(self)

    # -- allocating ----------------------------------------------------------

    def alloc_pages(
        self, gfp: int, order: int = 0, nid: int | None = None, nodemask: int | Iterable[int] | None = None
    ) -> int | None:
        """``alloc_pages_node``, ``alloc_pages_nodemask``: a block of 2^order pages.

        :param gfp: ``gfp_t`` (:mod:`kernelmm.gfp`)
        :param nid: the node to begin with; default (or -1): the running CPU's
        :param nodemask: the nodes that are allowed, as a bit mask or as numbers; default: all
        :returns: ``struct page *``, or None
        :raises UsageError: there is no such node, or an argument is out of range
        """
        gfp = within("gfp", gfp, 0, 0xFFFFFFFF)
        # There are no larger blocks, so that all larger orders fail alike.
        order = min(within("order", order, 0, 1 << 31), abi.MAX_ORDER)
        if nid is None or nid == -1:
            nid = self.mm.numa_node_id()
        elif nid not in self.dump.pgdats:
            raise UsageError(f"alloc_pages: the machine has no node {nid}")
        with self._operation("alloc_pages"):
            zonelist = mmzone.node_zonelist(self.mm, nid, gfp & THISNODE != 0)
            return alloc_pages_from(self.mm, gfp, order, zonelist, node_bits(nodemask)) or None

    def alloc_page(self, gfp: int) -> int | None:
        """``alloc_page``: one page; ``struct page *``, or None."""
        return self.alloc_pages(gfp)

    def get_free_pages(self, gfp: int, order: int = 0) -> int | None:
        """``__get_free_pages``: direct-map address of 2^order pages, or None."""
        page = self.alloc_pages(gfp, order)
        return None if page is None else address.page_address(self.mm, page)

    def get_zeroed_page(self, gfp: int) -> int | None:
        """``get_zeroed_page``: direct-map address of a page of zeros, or None."""
        with self._operation("get_zeroed_page"):
            return entry.get_zeroed_page(self.mm, within("gfp", gfp, 0, 0xFFFFFFFF)) or None

    def alloc_pages_exact(self, size: int, gfp: int) -> int | None:
        """``alloc_pages_exact``: address of adjacent single pages, just enough for ``size`` bytes; or None.

        :raises UsageError: there is nothing to allocate
        """
        within("size", size, 1, 1 << 64)
        if size > abi.PAGE_SIZE << (abi.MAX_ORDER - 1):
            return self.get_free_pages(gfp, abi.MAX_ORDER)
        with self._operation("alloc_pages_exact"):
            return entry.alloc_pages_exact(self.mm, size, within("gfp", gfp, 0, 0xFFFFFFFF)) or None

    # -- freeing -------------------------------------------------------------

    def free_pages(self, addr: int | None, order: int = 0) -> None:
        """``free_pages``: give back 2^order pages by their direct-map address; NULL does nothing.

        :raises AddressError: no page frame is at this address
        :raises VmBugOn: the same, with :attr:`debug_vm`
        """
        order = within("order", order, 0, abi.MAX_ORDER - 1)
        if not addr:
            return
        # With debug_vm, a bad address is the kernel's own assertion's to tell.
        with suppress(*([AddressError] if self.debug_vm else [])):
            self.virt_to_page(addr)
            self.virt_to_page(addr + (abi.PAGE_SIZE << order) - 1)
        with self._operation("free_pages"):
            free.free_pages(self.mm, addr, order)

    def free_block(self, page: int, order: int = 0) -> None:
        """``__free_pages``: give back 2^order pages by their first ``struct page *``."""
        order = within("order", order, 0, abi.MAX_ORDER - 1)
        self._check_pages(page, 1 << order)
        with self._operation("__free_pages"):
            free_struct_pages(self.mm, page, order)

    def free_pages_exact(self, addr: int, size: int) -> None:
        """``free_pages_exact``: give back what :meth:`alloc_pages_exact` gave."""
        self.virt_to_page(addr + within("size", size, 1, self.ram.size) - 1)
        self.virt_to_page(addr)
        with self._operation("free_pages_exact"):
            entry.free_pages_exact(self.mm, addr, size)

    def judge_free(self, addr: int, order: int = 0, history: History | None = None) -> Verdict:
        """Say all that there is to say of ``free_pages(addr, order)``, without doing it (:mod:`kernelmm.validate`).

        :param history: what is known of the machine's allocations: a trace, a page_owner dump
        """
        from kernelmm.validate.judge import Judge

        return Judge(self.dump, history).free_pages(addr, order)

    # -- references ----------------------------------------------------------

    def get_page(self, page: int) -> None:
        """``get_page``: take a reference."""
        self._check_pages(page, 1)
        with self._operation("get_page"):
            compound.get_page(self.mm, page)

    def put_page(self, page: int) -> None:
        """``put_page``: drop a reference; the last one frees the page, or the compound page that it is part of."""
        self._check_pages(page, 1)
        with self._operation("put_page"):
            free.put_page(self.mm, page)

    def split_page(self, page: int, order: int) -> None:
        """``split_page``: turn an allocated block, not compound, into single pages."""
        order = within("order", order, 0, abi.MAX_ORDER - 1)
        self._check_pages(page, 1 << order)
        with self._operation("split_page"):
            free.split_page(self.mm, page, order)

    def drain_local_pages(self) -> None:
        """``drain_local_pages``: return the running CPU's page lists to the free lists."""
        with self._operation("drain_local_pages"):
            pcp.drain_local_pages(self.mm)

    def drain_all_pages(self) -> None:
        """``drain_all_pages``: return every CPU's page lists to the free lists."""
        with self.on_cpu(self.cpu), self._operation("drain_all_pages"):
            pcp.drain_all_pages(self.mm, 0)

    # -- addresses -----------------------------------------------------------

    def page_address(self, page: int) -> int:
        """Direct-map address of the frame that a ``struct page *`` describes."""
        self._check_pages(page, 1)
        return address.page_address(self.mm, page)

    def virt_to_page(self, addr: int) -> int:
        """``struct page *`` of the frame at a direct-map or kernel-image address; AddressError if there is none."""
        mm = self.mm
        if 0 <= addr < 1 << 64 and address.virt_addr_valid(mm, addr):
            page = address.virt_to_page(mm, addr)
            if address.page_to_pfn(mm, page) < self.dump.max_pfn:
                self._write_out(page, 1)
                return page
        raise AddressError(addr, f"no page frame is here: the direct map begins at {mm.page_offset:#x}, {self._pfns}")

    def page_to_pfn(self, page: int) -> int:
        """Page frame number of a ``struct page *``."""
        self._check_pages(page, 1)
        return address.page_to_pfn(self.mm, page)

    def pfn_to_page(self, pfn: int) -> int:
        """``struct page *`` of a page frame number."""
        if not 0 <= pfn < self.dump.max_pfn or not address.pfn_has_page(self.mm, pfn):
            raise AddressError(pfn << abi.PAGE_SHIFT, f"pfn {pfn} has no struct page: {self._pfns}")
        return address.pfn_to_page(self.mm, pfn)

    def page(self, page: int) -> PageView:
        """The fields of a ``struct page``, by name."""
        self._check_pages(page, 1)
        return PageView(self.mm, self.dump.layout, page)

    @property
    def _pfns(self) -> str:
        return f"pfns go from 0 to {self.dump.max_pfn - 1}"

    def _check_pages(self, page: int, count: int) -> None:
        """Refuse what is not the address of ``count`` entries of the page array; raises AddressError."""
        if page is None:
            raise AddressError(0, "NULL is not a struct page")
        mm = self.mm
        first = self.dump.page_map.pfn(page) if mm.sectioned else (page - mm.mem_map) >> abi.SIZEOF_PAGE_SHIFT
        for pfn in (first, first + count - 1):
            if page % abi.SIZEOF_PAGE or not 0 <= pfn < self.dump.max_pfn or not address.pfn_has_page(mm, pfn):
                what = "not a struct page" if pfn == first else f"{count} pages from here leave the page array"
                begins = "is in sections" if mm.sectioned else f"begins at {mm.mem_map:#x}"
                raise AddressError(page, f"{what}: the page array {begins}, {self._pfns}")
        self._write_out(page, count)

    def _write_out(self, page: int, count: int) -> None:
        """Before the core reads the entries of pages that it has not handed out: see that they are in memory."""
        if self.mm.deferred is not None:
            # So many pages lie in two blocks at most.
            for each in (page, page + (count - 1) * abi.SIZEOF_PAGE):
                self.mm.deferred.write_out(address.page_off(self.mm, each))

    # -- the caller ----------------------------------------------------------

    @property
    def cpu(self) -> int:
        """The CPU that calls (``smp_processor_id``)."""
        return self.mm.cpu

    @contextmanager
    def on_cpu(self, cpu: int) -> Iterator[None]:
        """Call from another CPU for a while.

        :raises UsageError: the machine has no such CPU, or it is not online
        """
        if not 0 <= cpu < self.mm.nr_cpus or not mmzone.cpu_online(self.mm, cpu):
            raise UsageError(f"the machine has no online CPU {cpu}")
        here = self.mm.cpu
        self.mm.set_cpu(cpu)
        try:
            yield
        finally:
            self.mm.set_cpu(here)

    # -- watching ------------------------------------------------------------

    @property
    def debug_vm(self) -> bool:
        """Whether the kernel's assertions (CONFIG_DEBUG_VM) are checked, and raise VmBugOn."""
        return self.mm.debug_vm

    @debug_vm.setter
    def debug_vm(self, on: bool) -> None:
        self.mm.debug_vm = on
        self.mm.set_debugging()

    @contextmanager
    def trace(self, sink: Callable[[Event], None] | None = None) -> Iterator[Tracer]:
        """Switch the kmem tracepoints on for a while.

        :param sink: called with each event; by default the tracer collects them
        """
        from kernelmm.study.trace import Tracer

        before = self.mm.tracer, self.mm.tracing
        tracer = Tracer(sink)
        self.mm.tracer, self.mm.tracing = tracer, True
        try:
            yield tracer
        finally:
            self.mm.tracer, self.mm.tracing = before

    def dmesg(self) -> str:
        """What the kernel printed since the machine was booted or attached, one line each."""
        return "".join(f"{line}\n" for line in self.console.lines)

    def explain(self, *operations: str, html: _Path | None = None) -> Explanation:
        """What operations would do to this machine, and how: tried on a copy, watched as they run.

        ``m.explain("alloc GFP_KERNEL 3", "free $ 3")``; the words are :mod:`kernelmm.study.explain_calls`'.  The
        result is text when printed, and a tree in a notebook.

        :param html: a file for a page to step through it, back and forth
        :raises UsageError: an operation is malformed, or the machine is too large to be copied
        :raises PhysmemError: an argument is not one of this machine
        """
        from kernelmm.study.explain_apart import explain_copy

        return explain_copy(self, operations, html)

    def translate(self, addr: int) -> AddressExplanation:
        """A virtual address explained: its bits, the page tables' entries, its ``struct page``, and back."""
        from physmem.inspect.explain import explain_address

        return explain_address(self.dump, addr)

    # -- memory by kernel address --------------------------------------------

    def read(self, addr: int, size: int = 8) -> bytes:
        """What is at a kernel address, through the page tables: a frame that has no mapping cannot be seen.

        :raises PageFault: it is not mapped; the oops is on the console
        """
        return access.read(self.kernel, addr, size)

    def write(self, addr: int, data: bytes) -> None:
        """Store at a kernel address, through the page tables; raises as :meth:`read` does."""
        access.write(self.kernel, addr, data)

    # -- debugging aids ------------------------------------------------------

    @property
    def debug_atomic_sleep(self) -> bool:
        """Whether allocations that may wait are reported where nobody may (CONFIG_DEBUG_ATOMIC_SLEEP).

        The context is ``mm.in_interrupt``, ``mm.preempt_count`` and ``mm.irqs_off``.
        """
        return self.mm.aids is not None and self.mm.aids.atomic_sleep is not None

    @debug_atomic_sleep.setter
    def debug_atomic_sleep(self, on: bool) -> None:
        if self.mm.aids is None:
            self.mm.aids = NoAids()
        self.mm.aids.atomic_sleep = AtomicSleep() if on else None
        self._set_alloc_aids()
        self.mm.set_debugging()

    def _set_alloc_aids(self) -> None:
        self.mm.alloc_aids = self.mm.aids.atomic_sleep is not None or self.mm.aids.lockdep is not None
        self.mm.set_debugging()

    @property
    def lockdep(self) -> bool:
        """Whether locks held over an allocation, and taken in reclaim, are checked (:mod:`kernelmm.debug.lockdep`)."""
        return self.mm.aids is not None and self.mm.aids.lockdep is not None

    @lockdep.setter
    def lockdep(self, on: bool) -> None:
        from kernelmm.debug.lockdep import Lockdep

        if self.mm.aids is None:
            self.mm.aids = NoAids()
        self.mm.aids.lockdep = Lockdep(self.mm.aids.callers(self.kernel), self.console) if on else None
        self._set_alloc_aids()

    def holding(self, name: str, read: bool = False, trylock: bool = False) -> AbstractContextManager[None]:
        """Hold a lock for a while, as far as :attr:`lockdep` is concerned; ``name`` is its class."""
        return self.mm.aids.lockdep.holding(self.mm, name, read, trylock) if self.lockdep else nullcontext()

    def reclaiming(self, gfp: int) -> AbstractContextManager[None]:
        """Be in reclaim for a while, for a request with ``gfp``, as far as :attr:`lockdep` is concerned."""
        return self.mm.aids.lockdep.reclaiming(self.mm, gfp) if self.lockdep else nullcontext()

    def page_owner(self) -> str:
        """Who has allocated which page, as /sys/kernel/debug/page_owner says; per-cpu lists are drained, as there.

        :raises UsageError: the machine was not booted with ``page_owner``
        """
        if self.mm.aids is None or self.mm.aids.owner is None:
            raise UsageError("page_owner is not on: the machine was booted without it")
        with self.on_cpu(self.cpu), self._operation("page_owner"):
            return "".join(f"{line}\n" for line in self.mm.aids.owner.read(self.mm))

    def fail_page_alloc(self, parameter: str | None = None, **attributes: int) -> FaultAttr:
        """Make allocations fail on purpose; what is to fail from now on.

        :param parameter: as on the kernel's command line: ``"<interval>,<probability>,<space>,<times>"``
        :param attributes: fields of :class:`~kernelmm.study.faults.FaultAttr`; the others stay as they are
        :raises UsageError: the parameter is malformed, or there is no such attribute
        """
        from kernelmm.study.faults import fail_page_alloc_debugfs, setup_fail_page_alloc

        if parameter is not None:
            setup_fail_page_alloc(self.mm, parameter)
        return fail_page_alloc_debugfs(self.mm, **attributes)

    # -- tuning --------------------------------------------------------------

    @cached_property
    def kernel(self) -> Kernel:
        """The kernel's structures and variables, by the names that they have in C."""
        return Kernel.attached(self.mm, self.dump)

    def sysctl(self, name: str, value: int | str | Sequence[int]) -> None:
        """Write a file in /proc/sys/vm (:mod:`kernelmm.bringup.sysctl`): ``m.sysctl("min_free_kbytes", 8192)``.

        :raises UsageError: there is no such file, or it does not take this value
        """
        if name not in SYSCTLS:
            raise UsageError(f"sysctl {name!r}: there are {', '.join(SYSCTLS)}")
        SYSCTLS[name](self.kernel, value)

    # -- scripts and files ---------------------------------------------------

    def start(self, script: Script | _Path) -> Run:
        """Get ready to run a page script (:mod:`kernelmm.study.script`), or a file with one, in slices.

        :raises UsageError: the script is malformed, or not one for this machine; with the line
        """
        from kernelmm.study.run import Run
        from kernelmm.study.script import Script, load

        parsed = script if isinstance(script, Script) else load(script)
        return Run(self.mm, parsed, self.dump.pgdats)

    def run(self, script: Script | _Path) -> list[str]:
        """Run a page script; its result lines.

        :raises PhysmemError: an operation failed as the kernel never does; a note says at which line
        """
        run = self.start(script)
        try:
            with self.on_cpu(self.cpu):
                run.step()
        except PhysmemError as error:
            error.add_note(f"{run.script.name}: line {run.line}")
            raise
        return list(run.lines())

    def save(
        self,
        path: _Path,
        format: str | None = None,
        compression: str | None = None,
        progress: Progress | None = None,
    ) -> list[str]:
        """Write all that was in the image, at the same addresses and with the same notes, as it is now.

        The file appears whole or not at all; a name that ends in .gz, .xz or .zst is compressed.  Memory that nobody
        has touched takes no room, and no time to speak of.

        :param format: ``elf``, ``kdump``, ``lime`` or ``raw``; default: by the ending of the name, or an ELF core
        :param compression: of the pages of a kdump-compressed file: ``zlib``, ``zstd``, ``lzo``, ``snappy``, ``none``
        :param progress: told how many bytes of memory have been written since the last time
        :returns: what the format cannot hold, each in a line
        :raises ImageError: it cannot be written
        :raises UsageError: there is no such format
        """
        from physmem.image.save import Target, save_image

        frames = None
        # A closed image does not tell any more what memory the machine had.
        with suppress(UsageError):
            frames = self.dump.image.frames
        return save_image(
            Target.of(path, format, compression),
            self.ram,
            self.dump.image.notes,
            page_offset=self.mm.page_offset,
            kernel=self.dump.kernel_mapping(),
            frames=frames,
            untouched=self.ram.untouched(),
            progress=progress,
        )

    @property
    def ram(self) -> Ram:
        """The physical memory."""
        return self.mm.ram

    @contextmanager
    def _operation(self, name: str) -> Iterator[None]:
        """Errors of Python's or C's making, inside, are about what is in memory: say so, by our own error."""
        try:
            yield
        except PhysmemError:
            raise
        except MEMORY_FAULTS as error:
            raise memory_fault(name) from error


def within(what: str, value: int, low: int, high: int) -> int:
    """An argument, if it is in the range [low, high]; raises UsageError."""
    if not low <= value <= high:
        raise UsageError(f"{what} {value}: must be from {low} to {high}")
    return value


def node_bits(nodes: int | Iterable[int] | None) -> int:
    """``nodemask_t`` as a word, 0 for all nodes; raises UsageError."""
    if nodes is None:
        return 0
    if isinstance(nodes, int):
        return within("nodemask", nodes, 1, (1 << 64) - 1)
    bits = sum(1 << within("node", nid, 0, 63) for nid in set(nodes))
    return within("nodemask", bits, 1, (1 << 64) - 1)
