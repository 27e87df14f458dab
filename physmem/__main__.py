# SPDX-License-Identifier: GPL-2.0-only
"""``python -m physmem``."""

from __future__ import annotations

from physmem.cli import main

main()
