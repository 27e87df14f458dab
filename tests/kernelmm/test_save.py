# SPDX-License-Identifier: GPL-2.0-only
"""A machine's memory in every format; with every write failing; larger than the disk; and going on from a file."""

from __future__ import annotations

import json
import random
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from kernelmm import gfp
from kernelmm.cli import main
from kernelmm.machine import Machine
from physmem import engine
from physmem.errors import ImageError
from physmem.image import open_image

TARGETS = ["m.kdump", "m.vmcore", "m.lime", "m.raw"]


@pytest.fixture(scope="module")
def machine() -> Machine:
    machine = Machine.boot("64M", nodes=2)
    for order in range(5):
        page = machine.alloc_pages(gfp.GFP_KERNEL, order)
        assert page is not None
        machine.ram.write(machine.page_address(page) - machine.mm.page_offset, b"in use" * 600)
    return machine


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize("known", [True, False])
def test_every_format_has_every_byte(
    machine: Machine, tmp_path: Path, name: str, known: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether or not the host tells what nobody has touched."""
    if not known:
        monkeypatch.setattr("physmem.residency._PAGEMAP", "/proc/none")
    done: list[int] = []
    lost = machine.save(tmp_path / name, progress=done.append)
    assert sum(done) == machine.ram.ranges.total()
    assert bool(lost) == (name in ("m.lime", "m.raw"))
    with open_image(tmp_path / name) as image:
        for start, end in machine.ram.ranges:
            assert image.read(start, end - start) == machine.ram.read(start, end - start)
        if name != "m.raw":
            assert image.ranges == machine.ram.ranges


@pytest.mark.parametrize("name", ["m.kdump", "m.vmcore"])
def test_it_goes_on_from_every_format(machine: Machine, tmp_path: Path, name: str) -> None:
    machine.save(tmp_path / name)
    with Machine.attach(tmp_path / name) as other:
        pages = [other.alloc_pages(gfp.GFP_KERNEL, order) for order in (0, 3, 0, 5)]
    machine.save(tmp_path / "again.vmcore")
    with Machine.attach(tmp_path / "again.vmcore") as other:
        assert pages == [other.alloc_pages(gfp.GFP_KERNEL, order) for order in (0, 3, 0, 5)]


def test_a_machine_that_is_larger_than_what_it_has_touched(tmp_path: Path) -> None:
    """256 GiB: of the file, a thousandth is on disk; its page array alone has 4 GiB."""
    machine = Machine.boot("256G")
    untouched = machine.ram.untouched()
    spans = machine.ram.ranges - untouched
    # What was touched, and the page array, which is written as it would be.
    assert spans.total() < (4 << 30) + (64 << 20)
    assert untouched.total() > 250 << 30
    assert list(tmp_path.iterdir()) == []


def test_the_command_line(tmp_path: Path) -> None:
    for arguments, format in (
        (["-o", "a.kdump", "--compression", "zstd"], "kdump-compressed"),
        (["-o", "a", "--format", "lime"], "LiME"),
        (["-o", "a.vmcore"], "ELF core"),
    ):
        path = tmp_path / arguments[1]
        result = CliRunner().invoke(main, ["boot", "--mem", "32M", *arguments[:1], str(path), *arguments[2:]])
        assert result.exit_code == 0, result.output
        assert ("lime has no notes" in result.stderr) == (format == "LiME")
        with open_image(path) as image:
            assert image.format == format
    script = tmp_path / "script.txt"
    script.write_text("a 1 -1 0 0xd0\nf 1 0\n")
    out = tmp_path / "b.kdump"
    result = CliRunner().invoke(main, ["run", str(tmp_path / "a.vmcore"), str(script), "-o", str(out)])
    assert result.exit_code == 0, result.output
    with open_image(out) as image:
        assert image.format == "kdump-compressed"
    result = CliRunner().invoke(main, ["boot", "--mem", "32M", "-o", str(out), "--compression", "rar"])
    assert result.exit_code == 2


# -- faults ----------------------------------------------------------------------


@pytest.mark.parametrize("name", TARGETS)
def test_a_disk_that_fills_up(machine: Machine, tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    machine.save(path)
    length = path.stat().st_size
    path.write_bytes(b"old")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    for limit in (0, 4096, length // 2, length - 1):
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limits[1]))
        try:
            with pytest.raises(ImageError, match="cannot be written: File too large"):
                machine.save(path)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert list(tmp_path.iterdir()) == [path]
        assert path.read_bytes() == b"old"


KILLED = """
import os, signal, sys
from kernelmm.machine import Machine
machine = Machine.boot("32M")
done = 0
def progress(step):
    global done
    done += step
    if done > 16 << 20:
        os.kill(os.getpid(), signal.SIGKILL)
machine.save(sys.argv[1], progress=progress)
"""


@pytest.mark.parametrize("name", ["m.kdump", "m.vmcore"])
def test_a_process_that_is_killed(tmp_path: Path, project_environment: dict[str, str], name: str) -> None:
    """In the middle of a save: the old file, and nothing else."""
    path = tmp_path / name
    path.write_bytes(b"old")
    command = [sys.executable, "-c", KILLED, str(path)]
    done = subprocess.run(command, env=project_environment, check=False, capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_bytes() == b"old"


# -- a break in between ----------------------------------------------------------


#: Boots a machine or opens one, goes through a part of a list of operations, and saves it; tells what was given.
PART = """
import json, sys
from physmem import engine

engine.select(sys.argv[1])
from kernelmm.machine import Machine

opened, first, last, target = sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), sys.argv[5]
state = json.load(sys.stdin)
if opened:
    machine = Machine.attach(opened)
else:
    machine = Machine.boot("64M", nodes=2, cpus=2, movablecore=8 << 20, cma=8 << 20)
for what, slot, order, flags, cpu in state["operations"][first:last]:
    with machine.on_cpu(cpu):
        if what == "alloc":
            page = machine.alloc_pages(flags, order)
            state["given"].append(page)
            state["held"][str(slot)] = [page, order]
        elif what == "drain":
            machine.drain_local_pages()
        elif state["held"][str(slot)][0] is not None:
            machine.free_block(*state["held"][str(slot)])
machine.save(target)
json.dump([state["given"], state["held"], machine.dmesg()], sys.stdout)
"""


def operations(count: int) -> list[tuple[str, int, int, int, int]]:
    """Allocations of all mobilities and orders, frees of what they gave, drains, on two CPUs."""
    chance = random.Random(11)
    found: list[tuple[str, int, int, int, int]] = []
    held: list[int] = []
    kinds = [gfp.GFP_KERNEL, gfp.GFP_ATOMIC, gfp.GFP_HIGHUSER_MOVABLE, gfp.GFP_KERNEL | gfp.__GFP_RECLAIMABLE]
    for number in range(count):
        what = chance.choices(["alloc", "free", "drain"], [58, 40, 2])[0]
        slot = number
        if what == "free":
            if not held:
                continue
            slot = held.pop(chance.randrange(len(held)))
        elif what == "alloc":
            held.append(slot)
        order = chance.choice([0, 0, 0, 0, 1, 2, 3, 6, 9, 10])
        found.append((what, slot, order, chance.choice(kinds), chance.choice([0, 1])))
    return found


@pytest.mark.skipif(len(engine.available()) < 2, reason="the compiled engine was not built here")
@pytest.mark.parametrize("engines", [("compiled", "interpreted"), ("interpreted", "compiled")], ids="-then-".join)
def test_saved_opened_by_the_other_engine_and_continued(
    engines: tuple[str, str], tmp_path: Path, project_environment: dict[str, str]
) -> None:
    """Half of the work before a save, half of it in another process with the other engine: as if without a break."""
    work = operations(500)
    fresh: dict[str, object] = {"operations": work, "given": [], "held": {}}

    def part(name: str, opened: str, first: int, last: int, target: str, state: dict[str, object]) -> list[object]:
        path = str(tmp_path / opened) if opened else ""
        command = [sys.executable, "-c", PART, name, path, str(first), str(last), str(tmp_path / target)]
        clean = {key: value for key, value in project_environment.items() if key != "PHYSMEM_ENGINE"}
        done = subprocess.run(command, check=False, env=clean, capture_output=True, text=True, input=json.dumps(state))
        assert done.returncode == 0, done.stderr
        told: list[object] = json.loads(done.stdout)
        return told

    half = len(work) // 2
    given, held, _ = part(engines[0], "", 0, half, "half.vmcore", fresh)
    half_way = fresh | {"given": given, "held": held}
    given, *_ = part(engines[1], "half.vmcore", half, len(work), "broken.vmcore", half_way)
    whole, _, log = part(engines[0], "", 0, len(work), "whole.vmcore", fresh)
    assert given == whole
    assert isinstance(whole, list)
    assert len(set(whole)) > 80
    assert "BUG" not in str(log)
    assert (tmp_path / "broken.vmcore").read_bytes() == (tmp_path / "whole.vmcore").read_bytes()
