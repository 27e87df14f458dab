# SPDX-License-Identifier: GPL-2.0-only
"""VMCOREINFO: for a real kernel's layout and symbols, the very text that it wrote; and the log beside it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kernelmm.bringup import printk
from kernelmm.bringup.linker import LOG_BUF_LEN, linux_banner
from kernelmm.bringup.vmcoreinfo import vmcoreinfo
from physmem.dump import open_dump
from physmem.image.notes import parse
from physmem.image.vmcoreinfo import encode

KERNELS = Path(__file__).parents[2] / "data" / "kernels"


@pytest.mark.parametrize(("name", "kernel"), [("n128_s1", "numa"), ("u128_s1", "up")])
def test_the_text_of_a_real_kernel(oracle: Callable[[str], Any], name: str, kernel: str) -> None:
    with open_dump(oracle(name).a) as dump:
        text = encode(vmcoreinfo(dump.layout, dump.symbols, dump.info.release))
    assert text.decode() == (KERNELS / kernel / "vmcoreinfo.txt").read_text()


def test_it_is_in_memory(booted: Callable[..., Any]) -> None:
    machine = booted()
    kernel = machine.kernel
    size = kernel.var("vmcoreinfo_size")
    text = kernel.ram.read(kernel.phys(kernel.symbols["vmcoreinfo_data"]), size)
    assert text == encode(machine.dump.info)
    assert b"\nNUMBER(phys_base)=0\n" in text
    note = kernel.ram.read(kernel.phys(kernel.symbols["vmcoreinfo_note"]), size + 64)
    assert parse(note)[0].desc == text
    # One register note for each CPU, then the kernel's.
    assert [note.name for note in booted(cpus=3).dump.image.notes] == ["CORE"] * 3 + ["VMCOREINFO"]


def test_the_log(booted: Callable[..., Any]) -> None:
    kernel = booted("256M", 2).kernel
    lines = printk.log(kernel)
    assert lines[0] == linux_banner()
    assert "BIOS-e820: [mem 0x0000000000100000-0x000000000fffffff] usable" in lines
    total = kernel.var("vm_total_pages")
    assert f"Built 2 zonelists in Node order, mobility grouping on.  Total pages: {total}" in lines


def test_a_log_that_is_full_stays_as_it_is(booted: Callable[..., Any]) -> None:
    kernel = booted().kernel
    lines = printk.log(kernel)
    for i in range(3000):
        printk.printk(kernel, f"line {i} " + "x" * 40)
    assert kernel.var("log_next_idx") <= LOG_BUF_LEN - 16
    log = printk.log(kernel)
    assert log[: len(lines)] == lines
    assert log[-1].startswith(f"line {len(log) - len(lines) - 1} ")
    assert len(log) > 1500
