# SPDX-License-Identifier: GPL-2.0-only
# Written by tools/pxd.py from btf_records.py; do not edit.

cimport cython
from libc.stdint cimport int8_t, int32_t, int64_t, uint8_t, uint32_t, uint64_t

@cython.locals(count=uint64_t, at=uint64_t, found=uint64_t, info=uint32_t, kind=uint32_t, elements=uint64_t, unknown=uint32_t)
cpdef uint64_t records(const uint32_t[::1] words, const uint32_t[::1] fixed, const uint32_t[::1] each, uint32_t[::1] starts, uint32_t[::1] names, uint8_t[::1] kinds) except? 0xBAD0BAD0BAD0BAD0

@cython.locals(i=uint64_t, j=uint64_t, at=uint64_t, width=uint64_t, found=uint64_t, room=uint64_t, info=uint32_t)
cpdef uint64_t enumerators(const uint32_t[::1] words, const uint32_t[::1] starts, const uint8_t[::1] kinds, uint64_t count, uint32_t of32, uint32_t of64, uint32_t[::1] names, uint32_t[::1] owners, uint64_t[::1] totals) except? 0xBAD0BAD0BAD0BAD0
