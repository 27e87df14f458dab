# SPDX-License-Identifier: GPL-2.0-only
"""``python -m kernelmm``."""

from __future__ import annotations

from kernelmm.cli import main

main()
