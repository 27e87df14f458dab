# SPDX-License-Identifier: GPL-2.0-only
"""A quiz as text, and as a sheet to be printed."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kernelmm.study.quiz_model import Quiz

__all__ = ["fragment", "page", "text"]

_WIDTH = 100


def text(quiz: Quiz, *, answers: bool) -> Iterator[str]:
    """Lines: the questions, or the answers as well."""
    yield f"{quiz.about} (quiz {quiz.kind}, seed {quiz.seed})"
    for number, question in enumerate(quiz.questions, 1):
        yield ""
        yield f"{number}. {question.text}"
        width = max(len(label) for label, _ in question.given)
        for label, value in question.given:
            first = f"   {label:{width}}  "
            yield from textwrap.wrap(value, _WIDTH, initial_indent=first, subsequent_indent=" " * len(first))
        for letter, (ask, answer) in zip("abcdef", zip(question.asks, question.answers, strict=True), strict=False):
            yield f"   {letter}) {ask}"
            if answers:
                yield from textwrap.wrap(answer, _WIDTH, initial_indent="      = ", subsequent_indent="        ")
        if answers:
            yield "   how:"
            yield from (f"      {line}".rstrip() for line in question.worked)


_CSS = """
.quiz{font:14px/1.5 system-ui,sans-serif;color:#1c2128;max-width:52em;margin:0 auto;text-align:left}
.quiz h1{font-size:20px;margin:.4em 0 .1em}
.quiz .sub{color:#5b6570;margin-bottom:1.2em}
.quiz .q{break-inside:avoid;margin:0 0 1.6em;padding-top:.6em;border-top:1px solid #d9dee4}
.quiz .q>b{font-size:15px}
.quiz table,.quiz .a,.quiz pre{font:12px/1.5 ui-monospace,"DejaVu Sans Mono",monospace}
.quiz table{border-collapse:collapse;margin:.5em 0}
.quiz td{padding:.05em 1.2em .05em 0;vertical-align:top;text-align:left;background:none}
.quiz td:first-child{color:#5b6570;white-space:nowrap}
.quiz ol{list-style:lower-alpha;margin:.4em 0;padding-left:1.6em}
.quiz .line{border-bottom:1px solid #b7bec7;height:1.9em}
.quiz .a{color:#1a5e2a;margin:.1em 0 .5em}
.quiz pre{font-size:10px;line-height:1.35;white-space:pre-wrap;color:#3d4650;background:#f4f6f8;padding:.6em}
.quiz .answers{break-before:page}
@media print{.quiz pre{background:none;border:1px solid #d9dee4}}
"""


def fragment(quiz: Quiz, *, answers: bool) -> str:
    """The sheet as a fragment of HTML: questions with room to write, then the answers on a page of their own."""
    out = [f'<div class="quiz"><style>{_CSS}</style>', *_part(quiz, solved=False)]
    if answers:
        out += ['<div class="answers">', *_part(quiz, solved=True), "</div>"]
    out.append("</div>")
    return "".join(out)


def _part(quiz: Quiz, *, solved: bool) -> Iterator[str]:
    yield f"<h1>{escape(quiz.about)}{': answers' if solved else ''}</h1>"
    yield f'<div class="sub">quiz {escape(quiz.kind)}, seed {quiz.seed}</div>'
    for number, question in enumerate(quiz.questions, 1):
        yield f'<div class="q"><b>{number}. {escape(question.text)}</b>'
        if not solved:
            rows = (f"<tr><td>{escape(label)}</td><td>{escape(value)}</td></tr>" for label, value in question.given)
            yield f"<table>{''.join(rows)}</table>"
        yield "<ol>"
        for ask, answer in zip(question.asks, question.answers, strict=True):
            below = f'<div class="a">{escape(answer)}</div>' if solved else '<div class="line"></div>'
            yield f"<li>{escape(ask)}{below}</li>"
        yield "</ol>"
        if solved:
            worked = escape("\n".join(question.worked))
            yield f"<details><summary>how</summary><pre>{worked}</pre></details>"
        yield "</div>"


def page(quiz: Quiz, *, answers: bool) -> str:
    """The sheet as a page of its own."""
    title = escape(f"quiz {quiz.kind}, seed {quiz.seed}")
    return (
        "<!DOCTYPE html>\n"
        f'<html lang="en"><head><meta charset="utf-8"><title>{title}</title></head>\n'
        f"<body>{fragment(quiz, answers=answers)}</body></html>"
    )
