# SPDX-License-Identifier: GPL-2.0-only
# room: inline
"""Operations of a page script as numbers: the code of the letter that stands for each.

:mod:`kernelmm.study.script` reads the letters, :mod:`kernelmm.core.replay` performs the numbers.
"""

from __future__ import annotations

ALLOC = 97  # a id nid order gfp
FREE = 102  # f id order: __free_pages
FREE_ADDR = 70  # F id order: free_pages
FREE_COLD = 99  # c id: put_page_testzero, then free_hot_cold_page(cold)
FREE_BAD = 66  # B id: free_hot_cold_page with the reference still held
GET = 103  # g id: get_page
PUT = 112  # p id: put_page
GET_TAIL = 71  # G id k: get_page of the k-th page
PUT_TAIL = 80  # P id k: put_page of the k-th page
SPLIT = 83  # S id order newid: split_page
DRAIN_LOCAL = 100  # d
DRAIN_ALL = 68  # D
SCANNED = 110  # n zoneidx delta: NR_PAGES_SCANNED of a zone of node 0
PIN_CPU = 84  # T cpu
WRITE = 120  # x id k field value: into the k-th page
