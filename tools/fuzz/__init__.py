# SPDX-License-Identifier: GPL-2.0-only
"""Hostile input: every parser under a fuzzer.  See docs/fuzzing.md."""
