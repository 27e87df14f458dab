# SPDX-License-Identifier: GPL-2.0-only
# Written by tools/pxd.py from kallsyms_walk.py; do not edit.

cimport cython
from libc.stdint cimport int8_t, int32_t, int64_t, uint8_t, uint32_t, uint64_t

@cython.locals(size=uint64_t, at=uint64_t, i=uint64_t, j=uint64_t, length=uint64_t, token=uint32_t, number=uint64_t, letters=uint64_t, begun=bint, mask=uint64_t)
cpdef uint64_t walk(const uint8_t[::1] data, uint64_t count, const uint8_t[::1] lengths, const uint64_t[::1] scales, const uint64_t[::1] sums, const uint64_t[::1] tails, uint32_t[::1] heads, uint64_t[::1] numbers, uint64_t[::1] total) except? 0xBAD0BAD0BAD0BAD0
