# SPDX-License-Identifier: GPL-2.0-only
"""``kernelmm validate``: the verdict on a free without doing it, or on all the frees of a trace."""

from __future__ import annotations

import os
import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING

import click

from physmem.cli.common import FOUND, DumpOptions, dump_options, echo_json, echo_table, example, json_option
from physmem.errors import UsageError

if TYPE_CHECKING:
    from kernelmm.validate.ends import Pages
    from kernelmm.validate.ledger import Ledger
    from kernelmm.validate.verdict import Outcome, Verdict

__all__ = ["command"]


@click.command(
    epilog=example(
        "kernelmm validate trace.txt",
        'kernelmm validate --image A.vmcore.xz "free ffff880006d0a000 0" "__free_pages pfn:27914 1"',
        'kernelmm validate --image A.vmcore.xz --owner trace.txt "free pfn:27914"',
        "kernelmm validate trace.txt --before A.vmcore --after B.vmcore --since 0.570257 --until 0.580940",
        "kernelmm validate --checks",
        "kernelmm validate --image vmcore --checks",
    )
)
@click.argument("what", metavar="[TRACE | FREE...]", nargs=-1)
@click.option("--image", metavar="IMAGE", type=click.Path(), help="Judge frees on the memory in IMAGE.")
@click.option(
    "--owner", metavar="FILE", type=click.Path(), help="With --image: a trace or page_owner dump of its past."
)
@click.option("--debug-vm", is_flag=True, help="With --image: show what a kernel with CONFIG_DEBUG_VM does.")
@click.option("--checks", is_flag=True, help="List the checks: Linux 4.0's, or those of the kernel in IMAGE.")
@click.option("--before", metavar="IMAGE", type=click.Path(), help="Memory as it was when the trace begins.")
@click.option("--after", metavar="IMAGE", type=click.Path(), help="Memory as it was when the trace ends.")
@click.option("--since", metavar="SECONDS", type=float, help="Pass over a trace's events before this time.")
@click.option("--until", metavar="SECONDS", type=float, help="Pass over a trace's events after this time.")
@click.option("--skip-bad", is_flag=True, help="Count malformed lines of a trace, and go on.")
@click.option("--no-leaks", is_flag=True, help="What a trace leaves allocated at its end is an error.")
@dump_options
@json_option
def command(
    what: tuple[str, ...],
    image: str | None,
    owner: str | None,
    debug_vm: bool,
    checks: bool,
    before: str | None,
    after: str | None,
    since: float | None,
    until: float | None,
    skip_bad: bool,
    no_leaks: bool,
    options: DumpOptions,
    as_json: bool,
) -> int:
    """Are frees right?  The exit status is 1 if one is wrong.

    TRACE is text of kmem events, by ftrace, trace-cmd report or perf script ('-': standard input), or a page_owner
    dump: what contradicts itself in it is told, with the lines.  Images of the memory before and after (of any kernel)
    show every event that is missing in between.

    With --image, each FREE is judged without doing it.  A FREE is 'free ADDR ORDER'
    (free_pages), '__free_pages PAGE ORDER' or 'put_page PAGE'; ADDR and PAGE may be
    pfn:N or phys:ADDRESS too.  Nothing in memory changes.  The verdict is that of the kernel whose memory it is.
    """
    if checks:
        return _checks(image, options, as_json)
    if not what:
        raise UsageError("expected a TRACE, or --image IMAGE and a FREE such as 'free ADDR ORDER'")
    if image is None:
        if len(what) > 1 or " " in what[0]:
            raise UsageError("judging a free needs the memory: --image IMAGE (and traces are validated one at a time)")
        ends = [None if each is None else _pages(each, options) for each in (before, after)]
        return _trace(what[0], ends[0], ends[1], (since, until), skip_bad, no_leaks, as_json)
    return _frees(image, what, owner, debug_vm, options, as_json)


def _checks(image: str | None, options: DumpOptions, as_json: bool) -> int:
    from kernelmm.validate.checks import CHECKS
    from kernelmm.validate.surroundings import Kernel

    asked = CHECKS
    if image is not None:
        with options.open(image) as dump:
            asked = Kernel(dump).asked
    rows = [(check.name, check.asks, check.asked, check.where) for check in asked.values()]
    columns = ("check", "what is true of a right free", "asked", "where")
    if as_json:
        echo_json([dict(zip(("check", "asks", "asked", "where"), row, strict=True)) for row in rows])
    else:
        echo_table(columns, rows)
    return 0


def _frees(
    image: str, calls: tuple[str, ...], owner: str | None, debug_vm: bool, options: DumpOptions, as_json: bool
) -> int:
    from kernelmm.validate import request
    from kernelmm.validate.judge import Judge
    from kernelmm.validate.page_owner import history

    with options.open(image) as dump:
        judge = Judge(dump, None if owner is None else history(owner))
        verdicts = [request.judge(judge, call) for call in calls]
        told = judge.kernel.told
    if as_json:
        echo_json([verdict.as_json() for verdict in verdicts])
    else:
        if told:
            click.echo(f"judged as by {told}")
        for verdict in verdicts:
            _print(verdict, debug_vm)
    return 0 if all(verdict.right for verdict in verdicts) else FOUND


def _print(verdict: Verdict, debug_vm: bool) -> None:
    """One verdict: what each check says, what the kernel does, and all of it in plain words."""
    from kernelmm.validate.verdict import Status

    pfn = "no page" if verdict.pfn is None else f"pfn {verdict.pfn}"
    click.secho(f"{verdict.call}: {verdict.status.word} ({pfn}, order {verdict.order})", bold=True)
    asked = [answer for answer in verdict.answers if answer.status is not Status.NOT_ASKED]
    rows = [
        (a.check, a.status.word, verdict.asked[a.check].asked, a.detail or verdict.asked[a.check].asks) for a in asked
    ]
    echo_table(("check", "verdict", "asked", "what it says"), rows)
    if debug_vm or verdict.debug_vm == verdict.plain:
        _print_outcome("the kernel" if verdict.debug_vm == verdict.plain else "with DEBUG_VM it", verdict.debug_vm)
    else:
        _print_outcome("the kernel", verdict.plain)
        _print_outcome("with DEBUG_VM it", verdict.debug_vm)
    click.echo(f"in words: {verdict.reasons}")
    click.echo()


def _print_outcome(who: str, outcome: Outcome) -> None:
    click.echo(f"{who} {outcome.effect}")
    for later in outcome.later:
        click.echo(f"  later: {later}")


# -- traces -------------------------------------------------------------------

#: Files from this size on have a progress bar, on a terminal.
_LONG = 1 << 26
#: Findings and groups of leaks that are printed.
_SHOWN = 50


def _pages(image: str, options: DumpOptions) -> Pages:
    from kernelmm.validate.ends import Pages

    with options.open(image) as dump:
        return Pages(dump)


def _trace(
    path: str,
    started: Pages | None,
    ended: Pages | None,
    span: tuple[float | None, float | None],
    skip_bad: bool,
    no_leaks: bool,
    as_json: bool,
) -> int:
    from kernelmm.validate import page_owner
    from kernelmm.validate.ledger import Ledger
    from kernelmm.validate.tracefile import TraceFile

    if page_owner.is_page_owner(path):
        ledger, bad = page_owner.read(path, skip_bad=skip_bad)
    else:
        ledger = Ledger(started=started, ended=ended)
        with ExitStack() as stack:
            size = os.path.getsize(path) if os.path.isfile(path) else 0
            progress = None
            if size >= _LONG and sys.stderr.isatty():
                bar = stack.enter_context(click.progressbar(length=size, label="validating", file=sys.stderr))
                progress = bar.update
            trace = TraceFile(path, skip_bad=skip_bad, progress=progress, since=span[0], until=span[1])
            ledger.read(trace)
            bad = trace.bad
    (_trace_json if as_json else _trace_text)(ledger, bad)
    if not (ledger.allocs or ledger.failed or ledger.frees or ledger.batched):
        click.echo(f"{path}: no event of page allocation in it (see kernelmm validate --help)", err=True)
    return 0 if ledger.clean and not (no_leaks and ledger.leaks()) else FOUND


def _trace_json(ledger: Ledger, bad: int) -> None:
    echo_json(
        {
            "clean": ledger.clean,
            "allocations": ledger.allocs,
            "failed": ledger.failed,
            "frees": ledger.frees,
            "frees_of_allocated_before": ledger.before,
            "freed_in_parts": ledger.parts,
            "trimmed": ledger.trimmed,
            "lost_events_lines": ledger.lost,
            "malformed_lines": bad,
            "warnings": ledger.warnings,
            "counts": ledger.counts,
            "uncertain": ledger.uncertain,
            "findings": [vars(finding) for finding in ledger.findings],
            "leaks": [vars(leak) for leak in ledger.leaks()],
        }
    )


def _trace_text(ledger: Ledger, bad: int) -> None:
    for finding in ledger.findings[:_SHOWN]:
        click.echo(str(finding))
    more = sum(ledger.counts.values()) + ledger.uncertain - len(ledger.findings[:_SHOWN])
    if more > 0:
        click.echo(f"and {more} more, not listed")
    leaks = ledger.leaks()
    if leaks:
        click.echo(f"still allocated at the end: {sum(leak.pages for leak in leaks)} pages")
        rows = [(k.task, k.gfp, k.order, k.blocks, k.pages, k.first_line) for k in leaks[:_SHOWN]]
        columns = ("task", "gfp", "order", "blocks", "pages", "first line")
        echo_table(columns, rows, right=columns[2:])
        if len(leaks) > _SHOWN:
            click.echo(f"and {len(leaks) - _SHOWN} more groups")
    click.echo(f"{ledger.allocs} allocations, {ledger.failed} of none, {ledger.frees} frees")
    notes = {
        "frees of blocks that were allocated before the trace": ledger.before,
        "blocks freed in parts, all of them": ledger.parts,
        "blocks whose end was given back (alloc_pages_exact)": ledger.trimmed,
        "lines say that events were lost": ledger.lost,
        "malformed lines skipped": bad,
        "uncertain findings, not counted": ledger.uncertain,
    }
    for what, count in notes.items():
        if count:
            click.echo(f"{count} {what}")
    for warning in ledger.warnings:
        click.echo(f"warning: {warning}")
    found = ", ".join(f"{count} {kind}" for kind, count in ledger.counts.items())
    click.echo(f"wrong: {found}" if found else "clean: no event contradicts another")
