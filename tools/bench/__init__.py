# SPDX-License-Identifier: GPL-2.0-only
"""Benchmarks: our engines against the same algorithm in C, interleaved in one process."""
