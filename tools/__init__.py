# SPDX-License-Identifier: GPL-2.0-only
"""Run from a checkout: the generator of the ``.pxd`` files, benchmarks, the C reference."""
