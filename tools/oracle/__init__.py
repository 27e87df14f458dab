# SPDX-License-Identifier: GPL-2.0-only
"""A real Linux 4.0 that runs page scripts: what our allocator is judged by."""
