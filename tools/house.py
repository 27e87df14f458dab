#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""Draw ``docs/house.svg``, the rooms of the two packages and what each stands on, from the imports themselves.

A room is a module of a package's top level, or a sub-package with all that is in it.  An arrow leads from a room to
one of the same package that it imports, unless another arrow's way leads there too; what it imports of the floor below
is in the text that a browser shows over it.  ``--check`` writes nothing and fails if the picture
is stale or the house breaks a law: a circle of imports between modules, or physmem importing kernelmm.  What a function
imports when it is called (how a thing shows itself, say) makes no circle, but it does not excuse physmem.
"""

from __future__ import annotations

import argparse
import ast
import graphlib
import sys
from collections import defaultdict
from collections.abc import Mapping
from html import escape
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PICTURE = ROOT / "docs" / "house.svg"
#: From the ground floor up, with the colours of its rooms: fill, border.
FLOORS = {"physmem": ("#e8f1fb", "#2b6cb0"), "kernelmm": ("#fdf1e3", "#c05621")}

Graph = dict[str, set[str]]

WIDTH, ROW, HEIGHT, MARGIN = 1080, 78, 38, 40


# -- what imports what --------------------------------------------------------------


def modules(root: Path = ROOT) -> dict[str, Path]:
    """Every module of the two packages, by name, but for what ``python -m`` runs: a line that calls the real one."""
    found = {}
    for package in FLOORS:
        for path in sorted((root / package).rglob("*.py")):
            if path.stem == "__main__":
                continue
            found[".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")] = path
    return found


def imports(known: Mapping[str, Path], *, at_once: bool = False) -> Graph:
    """What each module imports of the two packages; what only a type checker reads does not count.

    :param at_once: only what it imports when it is imported itself
    """
    graph: Graph = {}
    for name, path in known.items():
        graph[name] = set()
        waiting: list[ast.AST] = [ast.parse(path.read_text())]
        while waiting:
            node = waiting.pop()
            if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
                waiting += node.orelse
                continue
            if at_once and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            if isinstance(node, ast.ImportFrom) and node.module:
                whole = (f"{node.module}.{alias.name}" for alias in node.names)
                graph[name] |= {each if each in known else node.module for each in whole} & known.keys() - {name}
            elif isinstance(node, ast.Import):
                graph[name] |= {alias.name for alias in node.names} & known.keys() - {name}
            waiting += ast.iter_child_nodes(node)
    return graph


def broken_laws(graph: Graph, at_once: Graph) -> list[str]:
    """What the house must not have, in words."""
    wrong = [
        f"{name} imports {other}: physmem never imports kernelmm"
        for name, others in graph.items()
        for other in sorted(others)
        if name.startswith("physmem") and other.startswith("kernelmm")
    ]
    try:
        graphlib.TopologicalSorter(at_once).prepare()
    except graphlib.CycleError as error:
        wrong.append("a circle of imports: " + " imports ".join(reversed(error.args[1])))
    return wrong


# -- rooms and where they stand -----------------------------------------------------


def room_of(module: str) -> str:
    """The room that a module is in."""
    return ".".join(module.split(".")[:2])


def floor_of(room: str) -> str:
    """The package that a room is in."""
    return room.partition(".")[0]


def rooms(graph: Graph) -> Graph:
    """What each room stands on, without the packages' own ``__init__``, and without the lesser arrow of a pair.

    Two sub-packages may each use modules of the other, in no circle: the one that uses more stands above.
    """
    uses: dict[tuple[str, str], int] = defaultdict(int)
    for name, others in graph.items():
        for other in others:
            if room_of(name) != room_of(other) and not {name, other} & FLOORS.keys():
                uses[room_of(name), room_of(other)] += 1
    stands: Graph = {room_of(name): set() for name in graph if name not in FLOORS}
    for (upper, lower), count in uses.items():
        if (count, upper) > (uses.get((lower, upper), 0), lower):
            stands[upper].add(lower)
    return stands


def levels(stands: Graph) -> dict[str, int]:
    """How many rooms are below each, one upon the other; kernelmm's begin above physmem's."""
    found: dict[str, int] = {}
    for room in graphlib.TopologicalSorter(stands).static_order():
        found[room] = 1 + max((found[lower] for lower in stands[room]), default=-1)
    top = max(level for room, level in found.items() if room.startswith("physmem"))
    upper = sorted({level for room, level in found.items() if room.startswith("kernelmm")})
    return {
        room: level if room.startswith("physmem") else top + 1 + upper.index(level) for room, level in found.items()
    }


def reduced(stands: Graph) -> Graph:
    """The arrows that no way over other arrows makes needless."""
    below: Graph = {}
    for room in graphlib.TopologicalSorter(stands).static_order():
        below[room] = stands[room].union(*(below[lower] for lower in stands[room]))
    return {
        room: {
            lower
            for lower in lowers
            if floor_of(lower) == floor_of(room) and not any(lower in below[other] for other in lowers - {lower})
        }
        for room, lowers in stands.items()
    }


# -- the picture --------------------------------------------------------------------


def width_of(room: str) -> int:
    """Pixels of a room's box."""
    return 30 + 9 * len(room.split(".")[1])


def place(level: Mapping[str, int], arrows: Graph) -> dict[str, tuple[float, float]]:
    """The middle of each room's box: rows by level, in a row as near as can be to what a room stands on."""
    height = max(level.values())
    where: dict[str, tuple[float, float]] = {}
    for row in range(height + 1):
        here = [room for room in level if level[room] == row]

        def wish(room: str) -> tuple[float, str]:
            below = [where[lower][0] for lower in arrows[room] if lower in where]
            return (sum(below) / len(below) if below else WIDTH / 2, room)

        here.sort(key=wish)
        gap = (WIDTH - 2 * MARGIN - sum(map(width_of, here))) / (len(here) + 1)
        x = MARGIN + gap
        for room in here:
            where[room] = (x + width_of(room) / 2, MARGIN + (height - row) * ROW + HEIGHT)
            x += width_of(room) + gap
    return where


def draw(graph: Graph) -> str:
    """The picture as SVG."""
    stands = rooms(graph)
    arrows = reduced(stands)
    level = levels(stands)
    where = place(level, arrows)
    bottom = MARGIN + max(level.values()) * ROW + 2 * HEIGHT + MARGIN
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {bottom}" font-family="sans-serif">',
        "<title>The rooms of physmem and kernelmm, and what each stands on</title>",
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="6" markerHeight="6" orient="auto">'
        '<path d="M0 0 L8 4 L0 8 z" fill="#8a94a3"/></marker></defs>',
        f'<rect width="{WIDTH}" height="{bottom}" fill="#ffffff"/>',
    ]
    for floor, (fill, border) in FLOORS.items():
        ys = [y for room, (_, y) in where.items() if room.startswith(floor)]
        top, height = min(ys) - HEIGHT, max(ys) - min(ys) + 2 * HEIGHT - 4
        out.append(f'<rect x="8" y="{top}" width="{WIDTH - 16}" height="{height}" rx="10" fill="{fill}"/>')
        out.append(f'<text x="22" y="{top + 24}" font-size="17" font-weight="bold" fill="{border}">{floor}</text>')
    for room, lowers in sorted(arrows.items()):
        x, y = where[room]
        for lower in sorted(lowers):
            u, v = where[lower]
            begin, end = y + HEIGHT / 2, v - HEIGHT / 2
            bend = (end - begin) / 2
            curve = f"M{x:.0f} {begin:.0f} C{x:.0f} {begin + bend:.0f} {u:.0f} {end - bend:.0f} {u:.0f} {end:.0f}"
            out.append(f'<path d="{curve}" fill="none" stroke="#8a94a3" stroke-width="1.1" marker-end="url(#tip)"/>')
    for room, (x, y) in sorted(where.items()):
        floor, name = room.split(".")
        border = FLOORS[floor][1]
        wide = width_of(room)
        below = ", ".join(sorted(stands[room])) or "nothing"
        out += [
            f"<g><title>{escape(f'{room} stands on {below}')}</title>",
            f'<rect x="{x - wide / 2:.0f}" y="{y - HEIGHT / 2:.0f}" width="{wide}" height="{HEIGHT}" rx="6" '
            f'fill="#ffffff" stroke="{border}" stroke-width="1.4"/>',
            f'<text x="{x:.0f}" y="{y + 5:.0f}" font-size="14" text-anchor="middle" fill="#1a202c">{name}</text></g>',
        ]
    return "\n".join([*out, "</svg>", ""])


def main() -> int:
    """Write the picture, or check it; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if stale or a law is broken")
    options = parser.parse_args()
    known = modules()
    graph = imports(known)
    wrong = broken_laws(graph, imports(known, at_once=True))
    for each in wrong:
        print(f"tools/house.py: {each}", file=sys.stderr)
    if wrong:
        return 1
    picture = draw(graph)
    if not options.check:
        PICTURE.write_text(picture)
    elif not PICTURE.exists() or PICTURE.read_text() != picture:
        print("tools/house.py: docs/house.svg is stale: run tools/house.py", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
