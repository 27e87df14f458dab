# SPDX-License-Identifier: GPL-2.0-only
# Written by tools/pxd.py from task.py; do not edit.

cimport cython
from libc.stdint cimport int8_t, int32_t, int64_t, uint8_t, uint32_t, uint64_t
cdef enum:
    PID = 8
cdef enum:
    PARENT = 12
cdef enum:
    COMM = 16
cdef enum:
    FLAGS = 32
cdef enum:
    TIF = 36
cdef enum:
    OOM_SCORE_ADJ = 40
cdef enum:
    UID = 44
cdef enum:
    TOTAL_VM = 48
cdef enum:
    ANON_RSS = 56
cdef enum:
    FILE_RSS = 64
cdef enum:
    NR_PTES = 72
cdef enum:
    MEMS_ALLOWED = 80
cdef enum:
    MEMS_ALLOWED_SEQ = 88
cdef enum:
    RT_PRIORITY = 92
cdef enum:
    HARDWALL_MEMS = 96
cdef enum:
    NR_CPUSETS = 104
cdef enum:
    OOM_FLAGS = 108
cdef enum:
    SIZE = 112
cdef enum:
    TIF_SIGKILL = 1
cdef enum:
    TIF_MEMDIE = 1048576
cdef enum:
    OOM_FLAG_ORIGIN = 1
