# SPDX-License-Identifier: GPL-2.0-only
"""Running a page script on a machine, in one go or in slices."""

from __future__ import annotations

from collections.abc import Collection, Iterator

import numpy as np
import numpy.typing as npt

from kernelmm.core import mmzone, opcode
from kernelmm.core.mm import Mm
from kernelmm.core.replay import replay
from kernelmm.study import ranges
from kernelmm.study import script as page_script
from kernelmm.study.script import Script
from physmem.errors import MEMORY_FAULTS, PhysmemError, UsageError, memory_fault

__all__ = ["Run"]

#: First result of an operation that was not performed; a PFN is -1 or more.
_NOT_RUN = -2


class Run:
    """A script under way on a machine.

    :param nodes: ids of the machine's nodes
    :ivar done: operations performed
    :ivar pages: ``struct page *`` of each id, 0 for one that has none
    :raises UsageError: the script names a node or CPU that the machine does not have; with the line
    """

    def __init__(self, mm: Mm, script: Script, nodes: Collection[int]) -> None:
        self.mm = mm
        self.script = script
        self.done = 0
        self.pages, self._results = page_script.run_numbers(script)
        self._results[:, 0] = _NOT_RUN
        self._rare = page_script.rare(script)
        self._demand(opcode.ALLOC, [-1, *nodes], "node")
        self._demand(opcode.PIN_CPU, [cpu for cpu in range(mm.nr_cpus) if mmzone.cpu_online(mm, cpu)], "online CPU")

    def _demand(self, code: int, known: Collection[int], what: str) -> None:
        """Refuse the script if the first argument of an operation is not among those known."""
        column = self.script.ops[:, 2]
        unknown = np.flatnonzero((self.script.ops[:, 0] == code) & ~np.isin(column, list(known)))
        if unknown.size:
            line, value = self.script.lines[unknown[0]], column[unknown[0]]
            raise UsageError(f"{self.script.name}: line {line}: the machine has no {what} {value}")

    @property
    def finished(self) -> bool:
        """Whether all operations are performed."""
        return self.done == len(self.script)

    @property
    def line(self) -> int:
        """Line number of the next operation, or after an error of the one that failed; 0 at the end."""
        return 0 if self.finished else int(self.script.lines[self.done])

    @property
    def results(self) -> npt.NDArray[np.int64]:
        """``int64[done][4]``: PFN, order, migratetype, count; see :mod:`kernelmm.core.replay`."""
        return self._results[: self.done]

    def step(self, count: int | None = None) -> None:
        """Perform the next ``count`` operations, or all that are left.

        :raises PhysmemError: an operation failed as the kernel never does; those before it are done
        """
        stop = len(self.script) if count is None else min(self.done + count, len(self.script))
        ops, results = self.script.ops.reshape(-1).data, self._results.reshape(-1).data
        start = self.done
        try:
            for rare in self._rare[(self._rare >= start) & (self._rare < stop)].tolist():
                replay(self.mm, ops, self.pages.data, results, start, rare)
                self._results[rare] = ranges.perform(self.mm, self.script, rare, self.pages)
                start = rare + 1
            replay(self.mm, ops, self.pages.data, results, start, stop)
        except PhysmemError:
            raise
        except MEMORY_FAULTS as error:
            raise memory_fault("page script") from error
        finally:
            performed = self._results[self.done : stop, 0] != _NOT_RUN
            self.done += int(performed.argmin()) if not performed.all() else stop - self.done

    def lines(self) -> Iterator[str]:
        """Result lines of the operations performed."""
        return page_script.format_results(self.script, self._results, self.done)
