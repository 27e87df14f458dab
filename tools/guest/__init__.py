# SPDX-License-Identifier: GPL-2.0-only
"""Guests to dump: a kernel is booted by qemu, says what it knows of its pages, and is dumped at that moment."""
