# SPDX-License-Identifier: GPL-2.0-only
"""``kernelmm validate``: the verdict on a free without doing it, or on all the frees of a trace."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from physmem.cli.common import FOUND, DumpOptions, dump_options, echo_json, echo_table, example, json_option
from physmem.errors import UsageError

if TYPE_CHECKING:
    from kernelmm.validate.verdict import Outcome, Verdict

__all__ = ["command"]


def _print_checks(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if value:
        from kernelmm.validate.checks import CHECKS

        rows = [(check.name, check.asks, check.asked, check.where) for check in CHECKS.values()]
        echo_table(("check", "what is true of a right free", "asked", "where"), rows)
        ctx.exit()


@click.command(
    epilog=example(
        'kernelmm validate --image A.vmcore.xz "free ffff880006d0a000 0" "__free_pages pfn:27914 1"',
        'kernelmm validate --image A.vmcore.xz --owner trace.txt "free pfn:27914"',
        "kernelmm validate --checks",
    )
)
@click.argument("what", metavar="[TRACE | FREE...]", nargs=-1, required=True)
@click.option("--image", metavar="IMAGE", type=click.Path(), help="Judge frees on the memory in IMAGE.")
@click.option(
    "--owner", metavar="FILE", type=click.Path(), help="With --image: a trace or page_owner dump of its past."
)
@click.option("--debug-vm", is_flag=True, help="With --image: show what a kernel with CONFIG_DEBUG_VM does.")
@click.option(
    "--checks",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_checks,
    help="List the checks, and exit.",
)
@dump_options
@json_option
def command(
    what: tuple[str, ...], image: str | None, owner: str | None, debug_vm: bool, options: DumpOptions, as_json: bool
) -> int:
    """Is a free right?  With --image, judge each FREE without doing it; the exit status is 1 if one is wrong.

    A FREE is 'free ADDR ORDER' (free_pages), '__free_pages PAGE ORDER' or 'put_page PAGE'; ADDR and PAGE may be
    pfn:N or phys:ADDRESS too.  Nothing in memory changes.
    """
    if image is None:
        raise UsageError("judging a free needs the memory: --image IMAGE")
    return _frees(image, what, owner, debug_vm, options, as_json)


def _frees(
    image: str, calls: tuple[str, ...], owner: str | None, debug_vm: bool, options: DumpOptions, as_json: bool
) -> int:
    from kernelmm.validate import request
    from kernelmm.validate.judge import Judge

    with options.open(image) as dump:
        judge = Judge(dump)
        verdicts = [request.judge(judge, call) for call in calls]
    if as_json:
        echo_json([verdict.as_json() for verdict in verdicts])
    else:
        for verdict in verdicts:
            _print(verdict, debug_vm)
    return 0 if all(verdict.right for verdict in verdicts) else FOUND


def _print(verdict: Verdict, debug_vm: bool) -> None:
    """One verdict: what each check says, what the kernel does, and all of it in plain words."""
    from kernelmm.validate.checks import CHECKS
    from kernelmm.validate.verdict import Status

    pfn = "no page" if verdict.pfn is None else f"pfn {verdict.pfn}"
    click.secho(f"{verdict.call}: {verdict.status.word} ({pfn}, order {verdict.order})", bold=True)
    asked = [answer for answer in verdict.answers if answer.status is not Status.NOT_ASKED]
    rows = [(a.check, a.status.word, CHECKS[a.check].asked, a.detail or CHECKS[a.check].asks) for a in asked]
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
