# SPDX-License-Identifier: GPL-2.0-only
"""Known kernels: recognised by their notes, and shipped as tools/known_kernel.py writes them."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from physmem.structs import known
from physmem.structs.linux_4_0 import NUMA, layout

ROOT = Path(__file__).parents[3]
IMAGE = ROOT / "tests/data/oracle/n128_s0_one/A.vmcore.xz"


def test_both_kernels_are_recognised(kernel: Any) -> None:
    found = known.recognise(kernel.note)
    assert found is not None
    assert found.layout is kernel.compiled
    # The note's own symbols are in the table, at the addresses that the note gives.
    in_note = {k[7:-1]: int(v, 16) for k, v in kernel.note.items() if k.startswith("SYMBOL(")}
    shared = in_note.keys() & found.symbols.keys()
    assert {"mem_section", "phys_base", "init_level4_pgt"} <= shared
    assert all(found.symbols[name] == in_note[name] for name in shared)


def test_the_kernels_differ() -> None:
    assert {"linux-4.0.0-numa", "linux-4.0.0-up"} <= {k.name for k in known.kernels()}
    assert len({k.fingerprint for k in known.kernels()}) == len(known.kernels())


def test_what_changes_from_boot_to_boot_does_not_matter(kernel: Any) -> None:
    other = dict(reversed(kernel.note.items())) | {"CRASHTIME": "1", "KERNELOFFSET": "400000", "NUMBER(phys_base)": "9"}
    assert known.fingerprint(other) == known.fingerprint(kernel.note)


@pytest.mark.parametrize(
    "key", ["OSRELEASE", "SYMBOL(mem_section)", "SIZE(zone)", "OFFSET(page.lru)", "LENGTH(mem_section)"]
)
def test_another_build_is_not_recognised(kernel: Any, key: str) -> None:
    assert known.recognise(kernel.note | {key: "0"}) is None
    assert known.recognise({k: v for k, v in kernel.note.items() if k != key}) is None
    assert known.recognise({}) is None


def test_opening_a_known_kernel_does_not_import_construct() -> None:
    """Only asking for the layout does: construct takes longer to import than the package."""
    code = "import sys; from physmem.structs import known; known.kernels(); assert 'construct' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def run_tool(monkeypatch: pytest.MonkeyPatch, *args: object) -> int:
    monkeypatch.setattr(sys, "argv", ["known_kernel.py", *map(str, args)])
    with pytest.raises(SystemExit) as status:
        runpy.run_path(str(ROOT / "tools/known_kernel.py"), run_name="__main__")
    return int(str(status.value.code))


@pytest.fixture
def symbols(tmp_path: Path) -> Path:
    """A symbols.json with the table of the shipped kernel, and the variable of a module."""
    path = tmp_path / "symbols.json"
    shipped = next(k for k in known.kernels() if k.name == "linux-4.0.0-numa")
    table = {name: hex(address) for name, address in shipped.symbols.items()}
    path.write_text(json.dumps({"addresses": table | {"ops": "0x10"}}))
    return path


def test_the_shipped_file_is_what_the_tool_writes(monkeypatch: Any, tmp_path: Path, symbols: Path) -> None:
    out, case = tmp_path / "out.json", f"{IMAGE}={symbols}"
    assert run_tool(monkeypatch, "linux-4.0.0-numa", "numa", case, case, "--without", "ops", "-o", out) == 0
    assert out.read_text() == (ROOT / "physmem/structs/known/linux-4.0.0-numa.json").read_text()


def test_the_tool_refuses_what_does_not_agree(monkeypatch: Any, tmp_path: Path, symbols: Path, capsys: Any) -> None:
    out, other = tmp_path / "out.json", tmp_path / "other.json"
    other.write_text(symbols.read_text().replace('"0x10"', '"0x20"'))
    assert run_tool(monkeypatch, "k", "numa", f"{IMAGE}={symbols}", f"{IMAGE}={other}", "-o", out) == 2
    assert capsys.readouterr().err.endswith(": ops\n")
    assert run_tool(monkeypatch, "k", "up", f"{IMAGE}={symbols}", "-o", out) == 2
    assert (
        "not a kernel of configuration up: constant MAX_NUMNODES is 64 in VMCOREINFO, 1 in" in capsys.readouterr().err
    )
    other.write_text("[]")
    assert run_tool(monkeypatch, "k", "numa", f"{IMAGE}={other}", "-o", out) == 2
    assert f"{other}: no table of addresses" in capsys.readouterr().err
    assert not out.exists()


def test_the_layout_reads_a_real_image() -> None:
    """The node, its zones and a page of a real memory, through the shipped layout and symbols."""
    from physmem.image import open_image

    with open_image(IMAGE) as image:
        kernel = known.recognise(image.vmcoreinfo)
        assert kernel is not None
        assert kernel.layout is layout(NUMA)
        known_layout = kernel.layout
        text, linear = known_layout.constant("__START_KERNEL_map"), known_layout.constant("PAGE_OFFSET")
        node_data = kernel.symbols["node_data"] - text  # physical: this kernel was not moved
        node = image.u64(node_data) - linear
        zones = image.array(node, known_layout.dtype("zone"), known_layout.lengthof("pglist_data", "node_zones"))
    assert zones["zone_start_pfn"].tolist()[:2] == [1, 4096]
    assert zones["zone_pgdat"].tolist()[0] == node + linear
    # All free pages are counted by order, and in vm_stat but for what the CPUs have not yet folded in.
    blocks = zones["free_area"]["nr_free"].astype(int)
    free = [sum(n << order for order, n in enumerate(zone)) for zone in blocks.tolist()]
    counted = zones["vm_stat"][:, known_layout.enumerator("NR_FREE_PAGES")].tolist()
    assert all(abs(a - b) < 128 for a, b in zip(free, counted, strict=True))
    assert all(free[:2])
