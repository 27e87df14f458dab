# SPDX-License-Identifier: GPL-2.0-only
"""What an image is, in numbers."""

from __future__ import annotations

from physmem.inspect.info import info
from physmem.ranges import Ranges


def test_a_numa_machine(open_case):
    found = info(open_case("n256x2_s6n"))
    assert (found.format, found.release) == ("ELF core (xz)", "4.0.0")
    assert found.path.endswith("n256x2_s6n/A.vmcore.xz")
    assert "Linux 4.0 SMP+NUMA" in found.layout
    assert "linux-4.0.0-numa" in found.symbols
    assert found.memory_model == "sparse, with a virtual memory map"
    assert (found.phys_base, found.page_offset) == (0, 0xFFFF880000000000)
    assert (found.pages, found.struct_pages, found.absent_struct_pages) == (65503, 65504, 0)
    assert found.absent == 65503 - found.ranges.total() // 4096
    assert found.cpus == [0]
    assert [node.id for node in found.nodes] == [0, 1]


def test_what_is_absent_is_counted(edit):
    editor = edit()
    online = editor.dump.virt_to_phys(editor.dump.symbols["cpu_online_bits"]) & -4096
    half = editor.dump.virt_to_phys(editor.page(16384))
    lost = Ranges([(online, online + 4096), (half, half + 16352 * 64)])
    before = info(editor.dump)
    editor.ram.ranges = editor.ram.ranges.difference(lost)
    after = info(editor.dump)
    assert after.cpus is None
    assert after.absent_struct_pages == 16352
    assert after.absent - before.absent == lost.total() // 4096
