# SPDX-License-Identifier: GPL-2.0-only
# room: inline
"""Where a task's record has what the allocator looks at: the fields of ``struct task_struct`` that concern it.

The real struct is a slab's and full of what belongs to others; a task here has a record of its own
(:mod:`kernelmm.pressure.owners`), with these fields under their C types.  ``mm.task`` is the running task's.
"""

from __future__ import annotations

PID = 8  # pid_t
PARENT = 12  # pid_t
COMM = 16  # char[16]
FLAGS = 32  # unsigned int: PF_*
TIF = 36  # thread_info.flags
OOM_SCORE_ADJ = 40  # signal->oom_score_adj, as an int
UID = 44  # uid_t
TOTAL_VM = 48
ANON_RSS = 56
FILE_RSS = 64
NR_PTES = 72
MEMS_ALLOWED = 80  # nodemask_t
MEMS_ALLOWED_SEQ = 88  # seqcount_t
RT_PRIORITY = 92  # unsigned int: 0 for a task that is not realtime
HARDWALL_MEMS = 96  # nodemask_t of the nearest hardwalled cpuset above the task's
NR_CPUSETS = 104  # int: cpusets besides the one of all tasks; in the first task's record only
OOM_FLAGS = 108  # signal->oom_flags, as an int
SIZE = 112

# thread flags
TIF_SIGKILL = 1  # a fatal signal is pending (the kernel looks into the signal queue)
TIF_MEMDIE = 1 << 20

# signal->oom_flags
OOM_FLAG_ORIGIN = 1
