# SPDX-License-Identifier: GPL-2.0-only
"""Our own kernel: everything in it has a place of its own, and who finds its dump knows where."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest

from kernelmm.bringup.kernel import Kernel
from kernelmm.bringup.linker import LOW_START, PHYSICAL_START, RELEASE, link, load
from kernelmm.bringup.variables import VARIABLES, initial_jiffies
from kernelmm.bringup.vmcoreinfo import vmcoreinfo
from physmem.ram import Ram
from physmem.structs import known
from physmem.structs.linux_4_0 import CONFIGS, NUMA, Config

STARTS = (("", PHYSICAL_START), ("-low", LOW_START))
BUILDS = [(name + suffix, config, start) for name, config in CONFIGS.items() for suffix, start in STARTS]

builds = pytest.mark.parametrize(("name", "config", "start"), BUILDS)


@builds
def test_it_is_a_known_kernel(name: str, config: Config, start: int) -> None:
    """The data file says what the linker says; tools/link_kernels.py writes it anew."""
    image = link(config, start)
    found = known.recognise(vmcoreinfo(image.layout, image.symbols, image.release))
    assert found is not None
    assert found.name == f"kernelmm-4.0.0-{name}"
    assert dict(found.symbols) == dict(image.symbols)
    assert found.layout.structs == image.layout.structs


@builds
def test_nothing_overlaps(name: str, config: Config, start: int) -> None:
    image = link(config, start)
    places: dict[bool, list[tuple[int, int, str]]] = {False: [], True: []}
    for variable in (v for v in VARIABLES if v.exists(image.layout)):
        at = image.symbols[variable.name]
        assert at % variable.align == 0
        places[variable.percpu and config.smp].append((at, at + variable.size(image.layout), variable.name))
    for name in ("init_level4_pgt", "level3_kernel_pgt", "level2_kernel_pgt", "level2_fixmap_pgt"):
        places[False].append((image.symbols[name], image.symbols[name] + 4096, name))
    places[False].append((image.symbols["__log_buf"], image.symbols["__log_buf"] + (1 << 17), "__log_buf"))
    for found in places.values():
        for one, other in pairwise(sorted(found)):
            assert one[1] <= other[0], f"{one[2]} and {other[2]}"
    base = image.layout.constant("__START_KERNEL_map")
    assert all(base + image.start <= low < high <= base + image.end for low, high, _ in places[False])
    if config.smp:
        assert all(0 <= low < high <= image.symbols["__per_cpu_end"] for low, high, _ in places[True])
    assert start % (2 << 20) == 0


@pytest.fixture
def loaded() -> Kernel:
    image = link(NUMA, LOW_START)
    kernel = Kernel(Ram(16 << 20), image.layout, image.symbols)
    load(kernel, image)
    return kernel


def test_what_is_in_it_at_first(loaded: Kernel) -> None:
    assert loaded.var("jiffies_64") == initial_jiffies(250) == (1 << 32) - 300 * 250
    assert [loaded.var("sysctl_lowmem_reserve_ratio", i) for i in range(3)] == [256, 256, 32]
    assert loaded.var("user_min_free_kbytes") == -1
    # GFP_BOOT_MASK: no waiting, no I/O, no file systems.
    assert loaded.var("gfp_allowed_mask") == 0x1FFFF2F
    assert loaded.var("phys_base") == 0
    name = loaded.ram.read(loaded.phys(loaded.symbols["init_uts_ns"]), 4 + 6 * 65)
    strings = [name[4 + 65 * i : 4 + 65 * (i + 1)].rstrip(b"\0").decode() for i in range(6)]
    assert strings[0::2] == ["Linux", RELEASE, "x86_64"]
    head = loaded.symbols["vmap_area_list"]
    assert loaded.words(loaded.phys(head), 2).tolist() == [head, head]
    zone_names = loaded.words(loaded.phys(loaded.symbols["zone_names"]), 4).tolist()
    assert [loaded.string(at) for at in zone_names] == ["DMA", "DMA32", "Normal", "Movable"]


def test_aliases(loaded: Kernel) -> None:
    symbols: Any = loaded.symbols
    assert symbols["jiffies"] == symbols["jiffies_64"]
    assert symbols["swapper_pg_dir"] == symbols["init_level4_pgt"]
    assert symbols["node_online_map"] == symbols["node_states"] + 8
