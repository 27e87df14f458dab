# SPDX-License-Identifier: GPL-2.0-only
"""Write the table of wrong frees into docs/wrong-frees.md: ``python -m tools.wrong_frees``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from kernelmm.validate.kinds import KINDS, Kind

PAGE = Path(__file__).resolve().parent.parent / "docs" / "wrong-frees.md"
BEGIN, END = "<!-- table -->\n", "<!-- end of table -->\n"


def rows() -> Iterator[tuple[str, ...]]:
    """The cells of the table, its head first."""
    yield "kind", "how it comes about", "check", "the kernel", "with DEBUG_VM", "it surfaces"
    for name, kind in KINDS.items():
        yield name, kind.story, f"`{kind.check}`", _plain(kind), _debug_vm(kind), kind.later.value


def _plain(kind: Kind) -> str:
    return f"{kind.plain.value}: `{kind.text}`" if kind.text else kind.plain.value


def _debug_vm(kind: Kind) -> str:
    return f"BUG at {kind.debug_vm}" if kind.debug_vm else "the same"


def table() -> str:
    """The table, in Markdown."""
    head, *body = rows()
    lines = [head, tuple("---" for _ in head), *body]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def main() -> None:
    """Put the table where the page has it."""
    before, _, rest = PAGE.read_text().partition(BEGIN)
    PAGE.write_text(f"{before}{BEGIN}{table()}{END}{rest.partition(END)[2]}")


if __name__ == "__main__":
    main()
