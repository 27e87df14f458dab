# SPDX-License-Identifier: GPL-2.0-only
"""``kernelmm replay``: a trace's allocations and frees on a machine of our own, and how its memory fragments."""

from __future__ import annotations

import os
import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING

import click

from kernelmm.cli.common import attach, engine_option
from physmem.cli.common import DumpOptions, dump_options, echo_json, echo_table, example, json_option
from physmem.errors import UsageError

if TYPE_CHECKING:
    from kernelmm.validate.replayer import Replay, Sample

__all__ = ["command"]

#: Files from this size on have a progress bar, on a terminal.
_LONG = 1 << 24


@click.command(
    epilog=example("kernelmm replay trace.txt", "kernelmm replay trace.txt A.vmcore.xz --plot fragmentation.png")
)
@click.argument("trace", type=click.Path())
@click.argument("image", type=click.Path(), required=False)
@click.option("--memory", metavar="SIZE", help="Of a machine of our own; default: what the trace's pages need.")
@click.option("--nodes", type=click.IntRange(1, 64), default=1, show_default=True, help="Its NUMA nodes.")
@click.option("--every", type=click.IntRange(1), help="Events between two looks; default: 20 looks.")
@click.option("--plot", metavar="FILE", type=click.Path(), help="Draw it: .png, .svg or .pdf.")
@click.option("--skip-bad", is_flag=True, help="Count malformed lines, and go on.")
@engine_option
@dump_options
@json_option
def command(
    trace: str,
    image: str | None,
    memory: str | None,
    nodes: int,
    every: int | None,
    plot: str | None,
    skip_bad: bool,
    options: DumpOptions,
    as_json: bool,
) -> int:
    """Make the allocations and frees of TRACE on the memory in IMAGE, or on a machine that is booted for it.

    A line for each look: pages free and allocated, the largest free block, and the share of free memory that is of no
    use to an allocation of order 4 and of a huge page (order 9).
    """
    from kernelmm.machine import Machine
    from kernelmm.validate.replayer import Replay, memory_for
    from kernelmm.validate.tracefile import TraceFile

    if not os.path.isfile(trace):
        raise UsageError(f"{trace}: no such file")
    if image is not None and (memory is not None or nodes > 1):
        raise UsageError("--memory and --nodes are of a machine of our own, not of an image")
    with ExitStack() as stack:
        if image is not None:
            machine = attach(image, options)
        else:
            machine = Machine.boot(memory or memory_for(TraceFile(trace, skip_bad=True)), nodes)
        stack.enter_context(machine)
        size, progress = os.path.getsize(trace), None
        if size >= _LONG and sys.stderr.isatty():
            progress = stack.enter_context(click.progressbar(length=size, label="replaying", file=sys.stderr)).update
        replay, file = Replay(machine), TraceFile(trace, skip_bad=skip_bad, progress=progress)
        step = every or max(1, _events(trace) // 20)
        samples = [replay.sample(""), *replay.run(file, step)]
    if plot is not None:
        _draw(samples, plot)
    if as_json:
        echo_json(_numbers(replay) | {"malformed_lines": file.bad, "samples": [each.as_json() for each in samples]})
    else:
        _print(replay, samples, file.bad)
    return 0


def _events(path: str) -> int:
    """About how many events a file has: lines."""
    with open(path, "rb") as file:
        return sum(piece.count(b"\n") for piece in iter(lambda: file.read(1 << 20), b""))


def _numbers(replay: Replay) -> dict[str, object]:
    names = ("events", "allocs", "frees", "failed", "unknown", "allocated")
    return {name: getattr(replay, name) for name in names}


def _print(replay: Replay, samples: list[Sample], bad: int) -> None:
    from kernelmm.validate.replayer import COSTLY, HUGE

    columns = ("event", "time", "free", "allocated", "largest", f"unusable {COSTLY}", f"unusable {HUGE}")
    rows = [
        (
            s.event,
            f"{s.time:.6f}",
            s.free,
            s.allocated,
            s.largest,
            f"{s.unusable(COSTLY):.3f}",
            f"{s.unusable(HUGE):.3f}",
        )
        for s in samples
    ]
    echo_table(columns, rows, right=columns)
    click.echo(
        "{allocs} allocations, {failed} failed here; {frees} frees, {unknown} of what is not here".format(
            **_numbers(replay)
        )
    )
    if bad:
        click.echo(f"{bad} malformed lines skipped")


def _draw(samples: list[Sample], path: str) -> None:
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise UsageError("--plot needs matplotlib: pip install 'physmem[plot]'") from None
    from kernelmm.validate.replayer import COSTLY, HUGE

    if os.path.splitext(path)[1] not in (".png", ".svg", ".pdf"):
        raise UsageError(f"{path}: a plot is .png, .svg or .pdf")
    figure = Figure(figsize=(9, 6), layout="constrained")
    pages, shares = figure.subplots(2, 1, sharex=True)
    events = [sample.event for sample in samples]
    pages.plot(events, [sample.free for sample in samples], label="free")
    pages.plot(events, [sample.allocated for sample in samples], label="allocated by the trace")
    pages.set_ylabel("pages")
    for order in (COSTLY, HUGE):
        shares.plot(events, [sample.unusable(order) for sample in samples], label=f"unusable, order {order}")
    shares.set_ylim(0, 1)
    shares.set(xlabel="events", ylabel="share of free memory")
    for axes in (pages, shares):
        axes.legend()
        axes.grid(alpha=0.3)
    figure.savefig(path)
