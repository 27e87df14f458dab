# SPDX-License-Identifier: GPL-2.0-only
"""``kernelmm quiz``: exercises on a small machine, and their answers."""

from __future__ import annotations

import click

from kernelmm.cli.common import text_output
from physmem import engine
from physmem.cli.common import echo_json, example, json_option
from physmem.structs.linux_4_0.config import MODELS

#: As :data:`kernelmm.study.quiz.KINDS`, which imports hot rooms.
_KINDS = ("translate", "buddy", "watermark", "freepath")


@click.command(
    epilog=example(
        "kernelmm quiz translate --seed 7",
        "kernelmm quiz translate --model sparsemem",
        "kernelmm quiz buddy --seed 7 --count 3 --answers",
        "kernelmm quiz freepath --seed 7 --html sheet.html --answers",
    )
)
@click.argument("kind", type=click.Choice(_KINDS))
@click.option("--seed", type=click.IntRange(0, (1 << 63) - 1), default=1, show_default=True, help="Which quiz.")
@click.option("--count", type=click.IntRange(1, 100), default=5, show_default=True, help="How many questions.")
@click.option(
    "--model", type=click.Choice(MODELS), default=MODELS[0], show_default=True, help="The kernel's memory model."
)
@click.option("--answers", is_flag=True, help="Solve them, by running the code.")
@click.option("--html", metavar="FILE", type=click.Path(), help="Write a sheet to be printed.")
@json_option
def command(kind: str, seed: int, count: int, model: str, answers: bool, html: str | None, as_json: bool) -> None:
    """Ask questions about a small machine: the same ones for the same seed."""
    engine.select("interpreted")  # the one that can be watched
    from kernelmm.study.quiz import make_quiz
    from kernelmm.study.quiz_show import page, text

    quiz = make_quiz(kind, seed, count, model)
    if html is not None:
        with text_output(html) as write:
            write(page(quiz, answers=answers))
    if as_json:
        echo_json(quiz.to_json(answers=answers))
    elif html is None:
        for line in text(quiz, answers=answers):
            click.echo(line)
