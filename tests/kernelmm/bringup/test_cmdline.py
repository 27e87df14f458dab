# SPDX-License-Identifier: GPL-2.0-only
"""The kernel's command line: each parameter, together, in any order; what is not ours is passed over."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernelmm.boot import BootConfig
from kernelmm.bringup.cmdline import PARAMETERS, parse_early_param
from kernelmm.debug.options import Debug
from kernelmm.machine import Machine
from physmem.e820 import MemoryMap
from physmem.errors import UsageError
from physmem.ranges import Ranges

MIB = 1 << 20
CONFIG = BootConfig(MemoryMap.from_size("256M", 2), cpus=4)


@pytest.mark.parametrize(
    ("text", "changed"),
    [
        ("mem=128M", {"mem": 128 * MIB}),
        ("mem=128M mem=64M", {"mem": 64 * MIB}),
        ("kernelcore=0x4000000", {"kernelcore": 64 * MIB}),
        ("movablecore=64M movablecore=32M", {"movablecore": 32 * MIB}),
        ("cma=16M", {"cma": 16 * MIB}),
        ("cma=8M@32M", {"cma": 8 * MIB, "cma_base": 32 * MIB, "cma_limit": 40 * MIB}),
        ("cma=8M@32M-64M", {"cma": 8 * MIB, "cma_base": 32 * MIB, "cma_limit": 64 * MIB}),
        ("cma=8M@32M cma=4M", {"cma": 4 * MIB}),
        ("numa_zonelist_order=Z", {"zonelist_order": "zone"}),
        ("numa-zonelist-order=node", {"zonelist_order": "node"}),
        ("hashdist=0", {"hashdist": 0}),
        ("nr_cpus=2", {"cpus": 2}),
        ("nr_cpus=16", {"cpus": 4}),
        ("nogbpages", {"gbpages": False}),
        ("nogbpages gbpages", {"gbpages": True}),
        ("numa=off", {"memory": MemoryMap.from_size("256M")}),
        ("numa=fake=4", {"memory": MemoryMap.from_size("256M", 4)}),
        (
            "debug_pagealloc=on debug_guardpage_minorder=1 page_owner=on",
            {"debug": Debug(True, 1, False, True)},
        ),
        ("fail_page_alloc=1,100,0,-1", {"fail_page_alloc": "1,100,0,-1"}),
        ("init=/bin/sh -- mem=64M", {}),
    ],
)
def test_every_parameter(text: str, changed: dict[str, Any]) -> None:
    config, _ = parse_early_param(CONFIG, text)
    differ = {name for name in vars(config) if getattr(config, name) != getattr(CONFIG, name)}
    assert {name: getattr(config, name) for name in changed} == changed
    assert differ <= set(changed)


def test_others_are_named() -> None:
    _, unknown = parse_early_param(CONFIG, 'root=/dev/sda1 mem=64M quiet movablcore=1G name="two words"')
    assert unknown == ["root=/dev/sda1", "quiet", "movablcore=1G", "name=two words"]
    machine = Machine.boot("64M", cmdline="quiet mem=32M")
    assert "Command line: quiet mem=32M" in machine.dmesg()
    assert "Unknown kernel command line parameters 'quiet', passed to user space." in machine.dmesg()


def test_memmap() -> None:
    config, _ = parse_early_param(CONFIG, "memmap=16M$64M,1M#96M memmap=64M@512M")
    assert config.memory.usable == CONFIG.memory.usable - Ranges([(64 * MIB, 80 * MIB), (96 * MIB, 97 * MIB)]) | Ranges(
        [(512 * MIB, 576 * MIB)]
    )
    assert [str(region).split("] ")[1] for region in config.memory.regions if region.start in (64 * MIB, 96 * MIB)] == [
        "reserved",
        "ACPI data",
    ]
    assert config.memory.nodes[0] == CONFIG.memory.nodes[0]
    assert config.memory.nodes[1].covers(512 * MIB, 576 * MIB)
    with pytest.raises(UsageError, match=r"memmap=256M\$0: no usable memory"):
        parse_early_param(CONFIG, "memmap=256M$0")


def test_hashdist_is_in_the_kernel() -> None:
    assert Machine.boot("32M").kernel.var("hashdist") == 1
    assert Machine.boot("32M", cmdline="hashdist=0").kernel.var("hashdist") == 0


WORDS = st.sampled_from([*PARAMETERS, "quiet", "x"])
VALUES = st.text(st.characters(codec="utf-8"), max_size=12) | st.sampled_from(
    ["1", "12M", "8M$1M", "50%", "off", "zone"]
)


@settings(max_examples=40)
@given(st.lists(st.tuples(WORDS, VALUES), max_size=6))
def test_any_text_is_understood_or_refused(told: list[tuple[str, str]]) -> None:
    text = " ".join(f"{name}={value}" for name, value in told)
    try:
        parse_early_param(CONFIG, text)
    except UsageError as error:
        assert "\n" not in str(error)
