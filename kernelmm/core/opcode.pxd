# SPDX-License-Identifier: GPL-2.0-only
# Written by tools/pxd.py from opcode.py; do not edit.

cimport cython
from libc.stdint cimport int8_t, int32_t, int64_t, uint8_t, uint32_t, uint64_t
cdef enum:
    ALLOC = 97
cdef enum:
    FREE = 102
cdef enum:
    FREE_ADDR = 70
cdef enum:
    FREE_COLD = 99
cdef enum:
    FREE_BAD = 66
cdef enum:
    GET = 103
cdef enum:
    PUT = 112
cdef enum:
    GET_TAIL = 71
cdef enum:
    PUT_TAIL = 80
cdef enum:
    SPLIT = 83
cdef enum:
    DRAIN_LOCAL = 100
cdef enum:
    DRAIN_ALL = 68
cdef enum:
    SCANNED = 110
cdef enum:
    PIN_CPU = 84
cdef enum:
    WRITE = 120
