# SPDX-License-Identifier: GPL-2.0-only
"""Watching the allocator: scripts to run, traces, reports."""
