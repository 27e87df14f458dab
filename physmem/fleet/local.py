# SPDX-License-Identifier: GPL-2.0-only
"""Images looked at by processes of this machine, each in one of its own.

A process takes its memory, its temporary files and its faults with it when it ends: what a hostile
image does to one, the others do not notice.  They are forked from a server that has everything
imported already, which costs some milliseconds each.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import time
from collections.abc import Iterable, Iterator
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import NamedTuple

from physmem.fleet.find import Found
from physmem.fleet.record import Options, Record, look_at

__all__ = ["cores", "locally"]


class _Running(NamedTuple):
    found: Found
    process: BaseProcess
    started: float


def cores() -> int:
    """How many CPUs this process may use."""
    return len(os.sched_getaffinity(0))


def locally(
    images: Iterable[Found], options: Options, workers: int | None = None, timeout: float | None = None
) -> Iterator[Record]:
    """Look at images, several at a time; records come as they are ready.

    :param workers: how many at a time; None: as many as there are cores
    :param timeout: seconds after which an image is given up
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["physmem.fleet.record"])
    waiting = iter(images)
    running: dict[Connection, _Running] = {}
    try:
        while True:
            while len(running) < (workers or cores()) and (found := next(waiting, None)):
                receiver, sender = context.Pipe(duplex=False)
                process = context.Process(target=_work, args=(sender, found, options), daemon=True)
                process.start()
                sender.close()
                running[receiver] = _Running(found, process, time.monotonic())
            if not running:
                return
            for ready in wait(running, timeout and 0.2):
                assert isinstance(ready, Connection)
                yield _result(ready, running.pop(ready))
            for late in [each for each in running if timeout and time.monotonic() - running[each].started > timeout]:
                yield _give_up(late, running.pop(late))
    finally:
        for receiver, task in running.items():
            task.process.kill()
            task.process.join()
            receiver.close()


def _work(sender: Connection, found: Found, options: Options) -> None:
    """What the process of one image does."""
    # Ctrl-C goes to every process of a terminal, and is for the first one to answer.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    record = look_at(found, options)
    with contextlib.suppress(BrokenPipeError):
        sender.send(record)


def _result(receiver: Connection, task: _Running) -> Record:
    with receiver:
        try:
            record = receiver.recv()
        except (EOFError, OSError):
            record = None
    task.process.join()
    if isinstance(record, Record):
        return record
    return Record.failed(task.found, _how_it_ended(task.process.exitcode), time.monotonic() - task.started)


def _give_up(receiver: Connection, task: _Running) -> Record:
    task.process.kill()
    task.process.join()
    receiver.close()
    seconds = time.monotonic() - task.started
    return Record.failed(task.found, f"given up after {seconds:.0f} seconds", seconds)


def _how_it_ended(code: int | None) -> str:
    if code is None or code >= 0:
        return f"the process that looked at it ended with status {code}"
    name = signal.Signals(-code).name if -code in list(signal.Signals) else f"signal {-code}"
    hint = ", as when memory runs out" if -code == signal.SIGKILL else ""
    return f"the process that looked at it was ended by {name}{hint}"
