# SPDX-License-Identifier: GPL-2.0-only
"""The C structs of a kernel: how they are declared, read, and known.

``layout`` is the front door: a :class:`~physmem.structs.layout.Layout` answers
offsets, sizes, enumerators and constants, wherever they came from -
``linux_4_0`` (declared here, with construct), ``layout_json`` (a file),
``vmcoreinfo_layout`` (the little a VMCOREINFO note tells).  ``known`` recognises
the kernels whose layout and symbols travel with the package.
"""
