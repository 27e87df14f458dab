# SPDX-License-Identifier: GPL-2.0-only
"""Parts of an explanation as a person sees them: plain text, colours on a terminal, HTML in a notebook.

What is explained is one thing, how it looks another: an explanation is a list of
:class:`Section`, and this room draws them.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult

    from physmem.inspect.explain.bits import BitField

__all__ = ["CSS", "Document", "Section", "html", "text"]

#: A colour for each field of a word, in turn: for the terminal and for HTML.
_COLOURS = ("bright_black", "cyan", "yellow", "green", "magenta", "blue", "red")
_HTML_COLOURS = ("#8a8f98", "#0b7285", "#b45f06", "#2b8a3e", "#9c36b5", "#1864ab", "#c92a2a")
_WIDTH = 110


@dataclass(frozen=True)
class Section:
    """A part of an explanation.

    :ivar columns: headings of ``rows``; none: the rows have no heading
    :ivar bits: a word taken apart, drawn above the rows
    :ivar notes: sentences below them
    :ivar mark: ``bad`` or ``note`` to make it stand out
    """

    title: str
    columns: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()
    notes: tuple[str, ...] = ()
    bits: tuple[BitField, ...] = ()
    mark: str = ""


class Document:
    """Mixed into an explanation: it prints itself.  ``document`` gives its title and its parts."""

    def document(self) -> tuple[str, list[Section]]:
        """Title, and sections in order."""
        raise NotImplementedError

    def __str__(self) -> str:
        title, parts = self.document()
        return "\n".join(text(title, parts))

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.document()[0]}>"

    def _repr_html_(self) -> str:
        return html(*self.document())

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield from rich(*self.document())


# -- plain text ---------------------------------------------------------------


def text(title: str, parts: Iterable[Section]) -> Iterator[str]:
    """Lines of plain text."""
    yield title
    for part in parts:
        yield ""
        yield part.title
        if part.bits:
            yield from (f"  {line}" for line in _ruler(part.bits))
        if part.rows:
            yield from (f"  {line}" for line in _aligned(part.columns, part.rows))
        for note in part.notes:
            yield from textwrap.wrap(note, _WIDTH, initial_indent="  ", subsequent_indent="    ")


def _ruler(bits: Sequence[BitField]) -> Iterator[str]:
    """A word's fields side by side: bit numbers, digits, names, values."""
    rows: list[list[str]] = [[], [], [], []]
    for field in bits:
        ends = str(field.high) if field.high == field.low else f"{field.high}..{field.low}"
        cells = (ends, field.binary, field.name, _value(field))
        width = max(map(len, cells))
        for row, cell in zip(rows, cells, strict=True):
            row.append(cell.center(width))
    for row in rows:
        yield "|".join(row).rstrip()


def _value(field: BitField) -> str:
    return f"{field.value:#x}" if field.width > 10 else str(field.value)


def _aligned(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    every = [columns, *rows] if columns else list(rows)
    widths = [max(len(row[i]) for row in every) for i in range(len(every[0]))]
    for row in every:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


# -- a terminal ---------------------------------------------------------------


def rich(title: str, parts: Iterable[Section]) -> Iterator[Any]:
    """Renderables for a rich console."""
    from rich import box
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    yield Text(title, style="bold reverse")
    for part in parts:
        yield Text(f"\n{part.title}", style="bold red" if part.mark == "bad" else "bold")
        if part.bits:
            table = Table.grid(padding=(0, 1))
            styles = [_COLOURS[i % len(_COLOURS)] for i in range(len(part.bits))]
            for style in styles:
                table.add_column(justify="center", style=style, no_wrap=True)
            table.add_row(*(Text(f"{f.high}" if f.high == f.low else f"{f.high}..{f.low}", "dim") for f in part.bits))
            table.add_row(*(f.binary for f in part.bits))
            table.add_row(*(Text(f.name, "bold") for f in part.bits))
            table.add_row(*(_value(f) for f in part.bits))
            yield Padding(table, (0, 0, 0, 2))
        if part.rows:
            grid = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_header=bool(part.columns))
            for column in part.columns or [""] * len(part.rows[0]):
                grid.add_column(column, overflow="fold")
            for row in part.rows:
                grid.add_row(*(Text(cell) for cell in row))
            yield Padding(grid, (0, 0, 0, 2))
        for note in part.notes:
            yield Padding(Text(note, style="red" if part.mark == "bad" else ""), (0, 0, 0, 2))


# -- HTML ---------------------------------------------------------------------

CSS = """
.physmem{font:13px/1.45 system-ui,sans-serif;color:#1f2328;max-width:78em;text-align:left}
.physmem h3{font-size:1.15em;margin:.2em 0 .4em}
.physmem h4{font-size:1em;margin:1em 0 .3em;border-bottom:1px solid #d0d7de}
.physmem code,.physmem table{font-family:ui-monospace,"DejaVu Sans Mono",Menlo,monospace;font-size:12px}
.physmem table{border-collapse:collapse;margin:.2em 0}
.physmem th,.physmem td{text-align:left;padding:.15em .7em .15em 0;vertical-align:top;background:none}
.physmem th{color:#656d76;font-weight:normal}
.physmem .bits td{padding:.1em .45em;text-align:center;border-left:1px solid #d0d7de}
.physmem .bits .n{color:#656d76;font-size:10px}
.physmem .bits .v{font-weight:bold}
.physmem p{margin:.25em 0}
.physmem .bad{color:#b42318}
.physmem .bad h4{border-color:#b42318}
"""


def html(title: str, parts: Iterable[Section]) -> str:
    """A fragment of HTML that brings its style along."""
    out = [f'<div class="physmem"><style>{CSS}</style><h3>{escape(title)}</h3>']
    for part in parts:
        out.append(f'<section class="{part.mark or "plain"}"><h4>{escape(part.title)}</h4>')
        if part.bits:
            out.append('<table class="bits">')
            for kind in ("n", "d", "m", "v"):
                cells = (_html_cell(kind, i, field) for i, field in enumerate(part.bits))
                out.append(f'<tr class="{kind}">{"".join(cells)}</tr>')
            out.append("</table>")
        if part.rows:
            out.append("<table>")
            if part.columns:
                out.append("<tr>" + "".join(f"<th>{escape(column)}</th>" for column in part.columns) + "</tr>")
            out += ("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in part.rows)
            out.append("</table>")
        out += (f"<p>{escape(note)}</p>" for note in part.notes)
        out.append("</section>")
    out.append("</div>")
    return "".join(out)


def _html_cell(kind: str, number: int, field: BitField) -> str:
    ends = str(field.high) if field.high == field.low else f"{field.high}..{field.low}"
    content = {"n": ends, "d": field.binary, "m": field.name, "v": _value(field)}[kind]
    style = "" if kind == "n" else f' style="color:{_HTML_COLOURS[number % len(_HTML_COLOURS)]}"'
    return f'<td title="{escape(field.meaning, quote=True)}"{style}>{escape(content)}</td>'
