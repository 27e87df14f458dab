# SPDX-License-Identifier: GPL-2.0-only
"""For people's own tests: a pytest plugin, strategies for hypothesis, and a base to compare allocators.

Each room is imported by its own name, so that pytest finds the plugin at no cost.
"""

from __future__ import annotations
