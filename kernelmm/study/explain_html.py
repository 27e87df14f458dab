# SPDX-License-Identifier: GPL-2.0-only
"""An explanation as HTML: a page of its own to step through, and a fragment for a notebook."""

from __future__ import annotations

import json
from collections.abc import Iterator
from html import escape
from importlib import resources
from typing import TYPE_CHECKING

from kernelmm.study.explain_model import Call, Change, Explanation

if TYPE_CHECKING:
    from kernelmm.machine import Machine

__all__ = ["fragment", "page"]

_PLACE = "/*film*/null"


def page(explanation: Explanation, machine: Machine) -> str:
    """One self-contained page; the machine must be as the explanation left it.

    It has buttons and keys to step forward and back over the path, the free lists and the page array.
    """
    from kernelmm.study.explain_steps import film

    template = resources.files("kernelmm").joinpath("data", "explain.html").read_text(encoding="utf-8")
    data = json.dumps(film(machine, explanation), separators=(",", ":"))
    # Inside a script element, nothing may look like its end.
    for character in "<>&\u2028\u2029":
        data = data.replace(character, f"\\u{ord(character):04x}")
    title = "; ".join(operation.call for operation in explanation.operations)
    return template.replace("<!--title-->", escape(title)).replace(_PLACE, data)


# -- a notebook's cell -----------------------------------------------------------------------------

_CSS = """
.kmm{font:12px/1.5 ui-monospace,"DejaVu Sans Mono",Menlo,monospace;color:#1f2328;text-align:left;max-width:80em}
.kmm details{margin-left:1.2em}.kmm details>p{margin:0 0 0 1.2em}.kmm p{margin:0;white-space:pre-wrap}
.kmm summary{cursor:pointer}.kmm b{font-weight:600}.kmm .r{color:#0b7285}.kmm .w{color:#b45f06}
.kmm .q{color:#57606a}.kmm .e{color:#b42318}.kmm h4{margin:.6em 0 .2em;font-size:13px}
"""


def fragment(explanation: Explanation) -> str:
    """The path as a tree to fold and unfold."""
    out = [f'<div class="kmm"><style>{_CSS}</style>']
    for operation in explanation.operations:
        out.append(f"<h4>{escape(operation.call)}</h4>")
        for call in operation.calls:
            out += _call(call, 0)
        if operation.error is not None:
            out.append(f'<p class="e">stopped: {escape(operation.error)}</p>')
        elif operation.result is not None:
            out.append(f'<p class="r">returns {escape(operation.result)}</p>')
    out.append("</div>")
    return "".join(out)


def _call(call: Call, depth: int) -> Iterator[str]:
    if not call.detail:
        arguments = ", ".join(f"{name} {value}" for name, value in call.arguments)
        result = "" if call.result is None else f' <span class="r">= {escape(call.result)}</span>'
        about = escape(call.about, quote=True)
        yield f'<details{" open" if depth < 3 else ""}><summary title="{about}"><b>{escape(call.kernel)}</b>'
        yield f"({escape(arguments)}){result}</summary>"
        depth += 1
    for line in call.lines:
        for part in line.parts:
            if isinstance(part, Change):
                if not part.is_link:
                    yield f'<p class="w">{escape(str(part))}</p>'
            else:
                yield from _call(part, depth)
        if line.decisive and line.worked and not call.detail:
            mark = "?" if line.kind == "decision" else ":"
            yield f'<p class="q">{escape(line.code)}{mark} <b>{escape(line.worked)}</b></p>'
    if not call.detail:
        yield "</details>"
