# SPDX-License-Identifier: GPL-2.0-only
"""``kernelmm boot``: the machine that was asked for, its image, and what cannot be."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from kernelmm.cli import main
from physmem.dump import open_dump
from physmem.inspect.check import check


def kernelmm(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def test_it_says_what_the_machine_has(tmp_path: Path) -> None:
    done = kernelmm("boot", "--mem", "256M", "--nodes", 2, "--cpus", 2, "-o", tmp_path / "m.vmcore")
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert lines[0].startswith("Linux version 4.0.0-kernelmm")
    assert [line.split(":")[0] for line in lines[-3:]] == [
        "Node 0, zone      DMA",
        "Node 0, zone    DMA32",
        "Node 1, zone    DMA32",
    ]
    with open_dump(tmp_path / "m.vmcore") as dump:
        assert sorted(dump.pgdats) == [0, 1]
        assert not check(dump).findings


def test_json(tmp_path: Path) -> None:
    done = kernelmm("boot", "--mem", "64M", "--cma", "8M", "--movablecore", "16M", "--json")
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert [zone["zone"] for zone in told["zones"]] == ["DMA", "DMA32", "Movable"]
    assert told["totalram_pages"] == sum(zone["managed"] for zone in told["zones"])


def test_a_memory_map_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "map"
    path.write_text("0x0-0x9fbff usable\n0x100000-0x3ffffff usable\n0x4000000-0x4ffffff reserved\n")
    done = kernelmm("boot", "--e820", path, "--limit", "48M", "--json")
    assert done.exit_code == 0, done.output
    zones = json.loads(done.stdout)["zones"]
    assert sum(zone["present"] for zone in zones) == 0x9E + (47 << 8)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--mem", "12Q"], "suffixes"),
        (["--mem", "1G", "--e820", "map"], "two ways"),
        (["--e820", "/nonexistent"], "No such file"),
        (["--nodes", "0"], "0 nodes"),
        (["--cpus", "100"], "100 CPUs"),
        (["--mem", "2M"], "too little memory"),
        (["--cma", "x"], "suffixes"),
    ],
)
def test_what_cannot_be(arguments: list[str], message: str) -> None:
    done = kernelmm("boot", *arguments)
    assert done.exit_code == 2
    assert done.stderr.count("\n") == 1
    assert message in done.stderr
