# SPDX-License-Identifier: GPL-2.0-only
"""A picture of memory as one self-contained page: zoom, drag, point at a page to see what it is."""

from __future__ import annotations

import base64
import json
import zlib
from html import escape
from importlib import resources

import numpy as np
import numpy.typing as npt

from physmem.inspect.map.cells import TILE, Chart
from physmem.inspect.map.kinds import FREE, KINDS, NOTHING

__all__ = ["page"]


def page(chart: Chart) -> str:
    """The page; it needs nothing from anywhere."""
    template = resources.files("physmem").joinpath("data", "map.html").read_text(encoding="utf-8")
    data = {
        "title": chart.title,
        "shift": chart.shift,
        "tile": TILE,
        "nothing": NOTHING,
        "free": FREE,
        "migratetypes": chart.migratetypes,
        "kinds": [kind._asdict() for kind in KINDS],
        "zones": [
            {
                "node": zone.node,
                "name": zone.name,
                "start": zone.start_pfn,
                "end": zone.end_pfn,
                "first": zone.first_pfn,
                "counts": zone.counts.tolist(),
                "kinds": _packed(zone.kinds),
                "mobility": _packed(zone.mobility.view(np.uint8)),
            }
            for zone in chart.zones
        ],
    }
    text = json.dumps(data, separators=(",", ":"))
    # Inside a script element, nothing may look like its end.
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return template.replace("<!--title-->", escape(chart.title)).replace("/*chart*/null", text)


def _packed(cells: npt.NDArray[np.uint8]) -> str:
    return base64.b64encode(zlib.compress(cells.tobytes(), 9)).decode("ascii")
