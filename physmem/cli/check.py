# SPDX-License-Identifier: GPL-2.0-only
"""``physmem check``: is the allocator's state what it should be?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from physmem.cli.common import FOUND, DumpOptions, TableOptions, dump_options, echo_table, example, table_options

if TYPE_CHECKING:
    from physmem.inspect.check import Report

__all__ = ["command"]


def _print_rules(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if value:
        from physmem.inspect.check import RULES

        echo_table(("rule", "what is true of a healthy kernel"), RULES.items())
        ctx.exit()


@click.command(epilog=example("physmem check A.vmcore.xz", "physmem check --rules"))
@click.argument("image", type=click.Path())
@click.option(
    "--rules", is_flag=True, is_eager=True, expose_value=False, callback=_print_rules, help="List the rules, and exit."
)
@dump_options
@table_options
def command(image: str, options: DumpOptions, table: TableOptions) -> int:
    """Look for everything wrong with the page array, zones and free lists of IMAGE.

    Each finding has the page's PFN, if it is about a page, and the rule that is broken; the exit status is 1 if
    there is any.  A rule that could not be looked at is named as not checked.
    """
    from physmem.inspect.check import check

    with options.open(image) as dump:
        report = check(dump)
    table.give(
        ("rule", "pfn", "detail"),
        rows=lambda: ((f.rule, f.pfn, f.detail) for f in report.findings),
        as_json=lambda: _json(report),
        text=lambda: _text(report),
    )
    return 0 if report.clean else FOUND


def _json(report: Report) -> dict[str, object]:
    from physmem.inspect.check import RULES

    return {
        "clean": report.clean,
        "findings": [{"rule": f.rule, "pfn": f.pfn, "detail": f.detail} for f in report.findings],
        "counts": report.counts,
        "checked": [rule for rule in RULES if rule not in {**report.not_checked, **report.not_applicable}],
        "not_checked": report.not_checked,
        "not_applicable": report.not_applicable,
    }


def _text(report: Report) -> None:
    from physmem.inspect.check import RULES

    if report.findings:
        rows = [("-" if f.pfn is None else f.pfn, f.rule, f.detail) for f in report.findings]
        echo_table(("pfn", "rule", "detail"), rows, right=("pfn",))
    unlisted = sum(report.counts.values()) - len(report.findings)
    if unlisted:
        click.echo(f"and {unlisted} more, not listed")
    # Many rules may be unchecked for one reason.
    reasons: dict[str, list[str]] = {}
    for rule, why in report.not_checked.items():
        reasons.setdefault("; ".join(why), []).append(rule)
    for reason, rules in reasons.items():
        click.echo(f"not checked: {', '.join(rules)}: {reason}")
    # What has no meaning for this kernel (--json names it) is no rule that it could break.
    every = len(RULES) - len(report.not_applicable)
    checked = f"{every} rules"
    if report.not_checked:
        checked = f"{every - len(report.not_checked)} of {checked}"
    if report.clean:
        click.echo(f"{'' if report.not_checked else 'clean: '}nothing found by {checked}")
    else:
        click.echo(f"{sum(report.counts.values())} found by {checked}")
