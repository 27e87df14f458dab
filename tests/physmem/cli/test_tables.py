# SPDX-License-Identifier: GPL-2.0-only
"""Every table as JSON and as Parquet, of an old kernel and of a new one."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from physmem.cli import main

DATA = Path(__file__).parents[2] / "data"
OLD = str(DATA / "oracle" / "n128_s1" / "A.vmcore.xz")
NEW = str(DATA / "vmcores" / "deb612-256m" / "image.vmcore.xz")
VERBS = ["info", "buddyinfo", "pagetypeinfo", "zoneinfo", "meminfo", "vmstat", "fragmentation", "pcp", "pages", "check"]


@pytest.fixture
def call(capsys):
    def caller(*args):
        with pytest.raises(SystemExit) as end:
            main(list(args))
        out, err = capsys.readouterr()
        return end.value.code or 0, out, err

    return caller


@pytest.mark.parametrize("image", [OLD, NEW], ids=["4.0", "6.12"])
@pytest.mark.parametrize("verb", VERBS)
def test_json(call, verb, image):
    code, out, err = call(verb, image, "--json")
    assert (code, err) == (0, "")
    assert json.loads(out)
    assert call(verb, image)[:1] == (0,)


@pytest.mark.parametrize("verb", [*VERBS, "iomem"])
def test_parquet(call, verb, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
    path = tmp_path / "table.parquet"
    assert call(verb, NEW, "--parquet", str(path)) == (0, "", "")
    table = parquet.read_table(path)
    assert table.num_columns >= (2 if verb == "vmstat" else 3)
    assert (table.num_rows > 0) == (verb != "check")


def test_parquet_without_pyarrow(call, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    code, _, err = call("buddyinfo", OLD, "--parquet", str(tmp_path / "table"))
    assert code == 2
    assert err == "physmem: --parquet needs pyarrow: pip install 'physmem[parquet]'\n"
    assert list(tmp_path.iterdir()) == []


def test_kpageflags_and_kpagecount(call, tmp_path):
    flags, count = tmp_path / "flags", tmp_path / "count"
    assert call("pages", NEW, "--kpageflags", str(flags), "--kpagecount", str(count))[0] == 0
    assert flags.stat().st_size == count.stat().st_size == 8 * 65536
    code, _, err = call("pages", NEW, "--where", "nonsense")
    assert code == 2
    assert "no such flag" in err


def test_per_cpu_lists_are_listed(call):
    code, out, _ = call("pcp", NEW, "--pfns")
    assert code == 0
    lines = out.splitlines()
    assert lines[1].startswith("node 0 zone DMA32 CPU 0: count 379, high 3523 (from ")
    listed = [line.split(": ")[1].split() for line in lines if line.startswith("order ") and ": " in line]
    orders = [int(line.split()[1]) for line in lines if line.startswith("order ") and ": " in line]
    assert sum(len(pfns) << order for pfns, order in zip(listed, orders, strict=True)) == 379


def test_a_layout_that_was_written_is_enough(call, tmp_path):
    path = tmp_path / "layout.json"
    code, out, _ = call("layout", NEW, "-o", str(path))
    assert (code, out.split(": ")[0]) == (0, str(path))
    plain = call("check", NEW)
    assert call("check", NEW, "--layout", str(path), "--symbols", str(path)) == plain
    assert call("pagetypeinfo", NEW, "--layout", str(path)) == call("pagetypeinfo", NEW)
