# SPDX-License-Identifier: GPL-2.0-only
"""``kernelmm run``: a page script on the memory of an image, its results, and the memory afterwards."""

from __future__ import annotations

import os
import sys
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from itertools import islice, zip_longest
from typing import TYPE_CHECKING

import click

from kernelmm.cli.common import attach, engine_option, save, text_output
from physmem import engine
from physmem.cli.common import FOUND, DumpOptions, dump_options, echo_json, example, json_option, target_options
from physmem.errors import PhysmemError, UsageError

if TYPE_CHECKING:
    from kernelmm.machine import Machine
    from kernelmm.study.run import Run

#: Operations between two looks at the clock, and at Ctrl-C: a few milliseconds of the compiled engine.
_SLICE = 1 << 14
#: Scripts from this length on have a progress bar, on a terminal.
_LONG = 1 << 18


@dataclass(frozen=True)
class Difference:
    """The first result line that is not the expected one.

    :ivar line: its number
    :ivar expected: the line of the file, None if it has no more
    :ivar got: the machine's line, None if there are no more
    :ivar script_line: number of the script's line that it is the result of, None if there is none
    :ivar operation: that line
    """

    line: int
    expected: str | None
    got: str | None
    script_line: int | None
    operation: str | None

    def __str__(self) -> str:
        expected, got = (repr(line) if line is not None else "the end" for line in (self.expected, self.got))
        whose = "" if self.operation is None else f" from line {self.script_line} of the script, {self.operation!r}"
        return f"line {self.line}: expected {expected}, got {got}{whose}"


@click.command(
    epilog=example(
        "kernelmm run A.vmcore script.txt --results -",
        "kernelmm run A.vmcore script.txt --expect result.txt -o B.vmcore",
    )
)
@click.argument("image", type=click.Path())
@click.argument("script", type=click.Path())
@click.option("--results", metavar="FILE", type=click.Path(), help="Write a line for each operation ('-': here).")
@click.option("--expect", metavar="FILE", type=click.Path(), help="Compare the results; exit with 1 if they differ.")
@click.option("-o", "--output", metavar="FILE", type=click.Path(), help="Write the memory afterwards.")
@target_options
@click.option("--trace", metavar="FILE", type=click.Path(), help="Write the kmem tracepoints as ftrace text.")
@click.option("--dmesg", metavar="FILE", type=click.Path(), help="Write what the kernel printed ('-': here).")
@click.option("--debug-vm", is_flag=True, help="Check the kernel's assertions (CONFIG_DEBUG_VM).")
@engine_option
@dump_options
@json_option
def command(
    image: str,
    script: str,
    results: str | None,
    expect: str | None,
    output: str | None,
    format_: str | None,
    compression: str | None,
    trace: str | None,
    dmesg: str | None,
    debug_vm: bool,
    options: DumpOptions,
    as_json: bool,
) -> int:
    """Run the page SCRIPT on a copy of the memory in IMAGE.

    The script has an operation a line: 'a id nid order gfp' allocates, 'f id order' frees, and so on.
    """
    from kernelmm.study.script import parse_results

    outputs = [name for name in (results, trace, dmesg, output) if name is not None]
    if len({os.path.realpath(name) for name in outputs}) < len(outputs):
        raise UsageError("one file cannot be two outputs")
    if as_json and "-" in outputs:
        raise UsageError("--json and '-' both want standard output")
    wanted = None if expect is None else parse_results(expect)
    # Files appear when the block ends well, and not before.
    with attach(image, options) as machine, ExitStack() as files:
        run = machine.start(script)
        machine.debug_vm = debug_vm
        write_results = files.enter_context(text_output(results))
        write_dmesg = files.enter_context(text_output(dmesg))
        if trace is not None:
            write_event = files.enter_context(text_output(trace))
            tracer = files.enter_context(machine.trace(lambda event: write_event(str(event))))
            write_event(tracer.header.rstrip("\n"))
        perform(run, show_progress=sys.stderr.isatty())
        for line in run.lines():
            write_results(line)
        for line in machine.console.lines:
            write_dmesg(line)
        if output is not None:
            save(machine, output, format_, compression)
    difference = None if wanted is None else first_difference(run, wanted)
    if as_json:
        echo_json(summary(run, machine) | {"difference": difference and asdict(difference)})
    else:
        say = partial(click.echo, err="-" in outputs)
        told = summary(run, machine)
        say("{operations} operations; of {allocations} allocations {failed} failed".format(**told))
        if machine.console.lines and dmesg is None:
            say(f"the kernel printed {len(machine.console.lines)} lines (--dmesg FILE keeps them)")
        if difference is not None:
            say(f"{expect}: {difference}")
    return 0 if difference is None else FOUND


def perform(run: Run, *, show_progress: bool) -> None:
    """Perform a script to its end; an error says at which line of the script."""
    total = len(run.script)
    with ExitStack() as stack:
        bar = None
        if show_progress and total >= _LONG:
            bar = stack.enter_context(click.progressbar(length=total, label="running", file=sys.stderr))
        try:
            while not run.finished:
                before = run.done
                run.step(_SLICE)
                if bar is not None:
                    bar.update(run.done - before)
        except PhysmemError as error:
            raise PhysmemError(f"{run.script.name}: line {run.line}: {error}") from error


def summary(run: Run, machine: Machine) -> dict[str, object]:
    """What happened, in numbers."""
    allocations = run.script.ops[: run.done, 0] == ord("a")
    return {
        "script": run.script.name,
        "engine": engine.current(),
        "operations": run.done,
        "allocations": int(allocations.sum()),
        "failed": int((run.results[allocations, 0] == -1).sum()),
        "console": machine.console.lines,
    }


def first_difference(run: Run, wanted: list[str]) -> Difference | None:
    """Compare the results with the lines that were expected."""
    from kernelmm.study.script import has_result

    for number, (expected, got) in enumerate(zip_longest(wanted, run.lines()), 1):
        if expected != got:
            lines = run.script.lines[[has_result(code) for code in run.script.ops[:, 0].tolist()]]
            if got is None:
                return Difference(number, expected, got, None, None)
            at = int(lines[number - 1])
            return Difference(number, expected, got, at, text_line(run.script.name, at))
    return None


def text_line(path: str, number: int) -> str:
    """One line of a text file."""
    with open(path, encoding="utf-8", errors="replace") as file:
        return " ".join(next(islice(file, number - 1, None), "").split())
