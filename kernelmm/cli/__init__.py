# SPDX-License-Identifier: GPL-2.0-only
"""The command line ``kernelmm VERB ...``: one module a verb, and what they share in ``common``."""

from __future__ import annotations

from physmem.cli.common import Program

__all__ = ["main"]

_VERBS = {
    "demo": "kernelmm.cli.demo",
    "boot": "kernelmm.cli.boot",
    "run": "kernelmm.cli.run",
    "explain": "kernelmm.cli.explain",
    "page-owner": "kernelmm.cli.page_owner",
    "quiz": "kernelmm.cli.quiz",
    "validate": "kernelmm.cli.validate",
    "replay": "kernelmm.cli.replay",
}

main = Program("kernelmm", _VERBS, "Run Linux's page allocator on the memory of a machine.")
