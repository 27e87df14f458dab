# SPDX-License-Identifier: GPL-2.0-only
"""``physmem survey``: many images, some of them bad; what is written, and what is not done twice."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys

import pytest
from click.testing import CliRunner

import physmem.cli.survey as verb
from physmem import fleet
from physmem.cli import main
from physmem.dump import open_dump
from physmem.fleet.rows import COLUMNS
from physmem.image.write import write_elf
from physmem.inspect.fragmentation import fragmentation_index, unusable_index
from physmem.inspect.zones import populated_zones
from physmem.ram import Ram

IMAGES = ("n128_s1/A.vmcore.xz", "n256x2_s6n/B.vmcore.xz")


@pytest.fixture(scope="module")
def damaged(tmp_path_factory):
    """An image in which the lists of an order are not what their count says."""
    from physmem.cli.common import DumpOptions

    path = tmp_path_factory.mktemp("damaged") / "damaged.vmcore"
    source = os.path.join(os.path.dirname(__file__), "..", "..", "data", "oracle", "n128_s1", "A.vmcore.xz")
    with DumpOptions().open(source) as dump:
        ram = Ram.from_image(dump.image)
        zone = list(populated_zones(dump))[1]
        ram.set_u64(dump.virt_to_phys(zone.free_lists[3][0].address) + 96, 77)
        write_elf(path, ram, dump.image.notes)
    return path


@pytest.fixture
def images(tmp_path, oracle, damaged):
    """Two good images, a damaged one, one cut short, and files that are none."""
    folder = tmp_path / "dumps"
    (folder / "deep" / "er").mkdir(parents=True)
    shutil.copy(oracle / IMAGES[0], folder / "one.vmcore.xz")
    shutil.copy(oracle / IMAGES[1], folder / "deep" / "er" / "numa")
    (folder / "deep" / "damaged.vmcore").symlink_to(damaged)
    (folder / "deep" / "short.vmcore").write_bytes(damaged.read_bytes()[:100])
    (folder / "notes.txt").write_text("not a memory image\n")
    (folder / "empty").touch()
    os.mkfifo(folder / "pipe")
    shutil.copy(oracle / "n128_s1" / "script.txt", folder / "script.txt")
    (folder / "library.so").write_bytes(b"\x7fELF\2\1\1" + bytes(9) + b"\3\0" + bytes(100))
    return folder


@pytest.fixture
def survey(monkeypatch):
    def runner(*args):
        return CliRunner().invoke(main, ["survey", *map(str, args)])

    return runner


@pytest.fixture
def quick(monkeypatch):
    """Images are looked at in this process; gives the names of those that were."""
    seen = []

    def here(images, options, workers=None, timeout=None):
        for image in images:
            seen.append(os.path.basename(image.path))
            yield fleet.look_at(image, options)

    monkeypatch.setattr(fleet, "locally", here)
    return seen


def read(path):
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
    return parquet.read_table(path)


def test_all_that_is_told_of_each_image(survey, images, oracle):
    result = survey(images, "--json")
    assert (result.exit_code, result.stderr) == (1, "")
    found = {os.path.relpath(each["path"], images): each for each in json.loads(result.stdout)}
    assert list(found) == ["one.vmcore.xz", "deep/damaged.vmcore", "deep/short.vmcore", "deep/er/numa"]

    numa = found["deep/er/numa"]
    assert (numa["error"], numa["release"], numa["nodes"], numa["cpus"]) == (None, "4.0.0", 2, 1)
    assert (numa["counts"], numa["findings"], numa["checked"]) == ({}, [], 40)
    assert numa["size"] == (images / "deep/er/numa").stat().st_size
    with open_dump(oracle / IMAGES[1]) as dump:
        for zone, told in zip(populated_zones(dump), numa["zones"], strict=True):
            assert (told["node"], told["zone"], told["managed"]) == (zone.node, zone.name, zone.managed)
            assert told["free"] == zone.vm_stat["NR_FREE_PAGES"]
            for order in range(11):
                assert told["unusable_index"][order] * 1000 == pytest.approx(unusable_index(zone.nr_free, order))
                assert told["extfrag_index"][order] * 1000 == pytest.approx(fragmentation_index(zone.nr_free, order))

    bad = found["deep/damaged.vmcore"]
    assert bad["error"] is None
    assert bad["counts"]["nr_free"] == 1
    assert sum(bad["counts"].values()) == len(bad["findings"])
    assert "77" in next(each["detail"] for each in bad["findings"] if each["rule"] == "nr_free")

    short = found["deep/short.vmcore"]
    assert short["error"].startswith(f"{images}/deep/short.vmcore: ")
    assert (short["counts"], short["zones"], short["release"]) == (None, [], None)


def test_the_tables(survey, images, quick):
    result = survey(images)
    assert result.exit_code == 1
    lines = result.stdout.splitlines()
    assert lines[0].split()[:4] == ["image", "kernel", "format", "cpus"]
    assert any(line.startswith("deep/er/numa") and "extfrag" in line for line in lines)
    assert not any(line.startswith("one.vmcore.xz") and "extfrag" in line for line in lines)
    assert any(line.split() == ["deep/damaged.vmcore", "nr_free", "1"] for line in lines)
    assert lines[-1] == "4 images: 2 clean, 1 with findings, 1 failed"
    assert result.stderr.startswith(f"physmem: deep/short.vmcore: {images}/deep/short.vmcore: ")


def test_clean_images_end_well(survey, images, quick):
    assert survey(images / "one.vmcore.xz").exit_code == 0
    twice = survey(images / "one.vmcore.xz", images / "one.vmcore.xz")
    assert twice.stdout.endswith("1 images: 1 clean, 0 with findings, 0 failed\n")


@pytest.mark.parametrize(
    ("args", "reason"),
    [
        (["{}/nothing"], "nothing: no such file or directory"),
        (["{}/sub"], "sub: no memory image in it"),
        (["{}", "--resume"], "--resume: there is no -o FILE to look into"),
        (["{}", "-o", "{}/one.vmcore.xz"], "one.vmcore.xz: is one of the images"),
        (["{}", "-o", "{}/no/such.parquet"], "cannot be written: no such directory"),
        (["{}", "--scheduler", "tcp://127.0.0.1:1", "--workers", "2"], "--workers and --timeout are for this machine"),
        ([], "Missing argument 'PATH...'"),
    ],
)
def test_bad_command_lines(survey, images, quick, args, reason, capsys):
    (images / "sub").mkdir()
    before = {path: path.stat().st_mtime_ns for path in images.iterdir()}
    with pytest.raises(SystemExit) as end:
        main(["survey", *(each.format(images) for each in args)])
    out, err = capsys.readouterr()
    assert (end.value.code, out) == (2, "")
    assert reason in err
    assert err.count("\n") == 1
    assert quick == []
    assert {path: path.stat().st_mtime_ns for path in images.iterdir()} == before


def test_what_cannot_be_looked_into_is_not_passed_over(survey, images, quick):
    (images / "broken.xz").write_bytes((images / "one.vmcore.xz").read_bytes()[:200] + bytes(100))
    found = json.loads(survey(images, "--json").stdout)
    assert any(each["path"].endswith("broken.xz") and "broken.xz: " in each["error"] for each in found)


def test_parquet_has_a_row_of_each_thing(survey, images, quick, tmp_path):
    path = tmp_path / "fleet.parquet"
    result = survey(images, "-o", path)
    assert result.exit_code == 1
    assert result.stdout == "4 images: 2 clean, 1 with findings, 1 failed\n"
    table = read(path)
    assert tuple(table.column_names) == COLUMNS
    rows = table.to_pylist()
    kinds = [row["kind"] for row in rows]
    assert (kinds.count("dump"), kinds.count("zone")) == (4, 2 + 3 + 2)
    bad = [row for row in rows if row["path"].endswith("damaged.vmcore")]
    assert next((row["rule"], row["count"]) for row in bad if row["kind"] == "rule") == ("nr_free", 1)
    assert [row["rule"] for row in bad if row["kind"] == "finding"] != []
    (short,) = (row for row in rows if row["path"].endswith("short.vmcore"))
    assert short["error"] is not None
    assert short["found"] is None
    assert all(len(row["unusable_index"]) == 11 for row in rows if row["kind"] == "zone")
    assert set(tmp_path.iterdir()) == {images, path}


def test_findings_are_limited_and_counted(survey, images, quick):
    (found,) = json.loads(survey(images / "deep" / "damaged.vmcore", "--json", "--findings", "0").stdout)
    assert found["findings"] == []
    assert found["counts"]["nr_free"] == 1


def test_resume_does_only_what_is_not_done(survey, images, quick, tmp_path):
    path = tmp_path / "fleet.parquet"
    survey(images / "deep", "-o", path)
    first = {row["path"]: row for row in read(path).to_pylist() if row["kind"] == "dump"}
    quick.clear()

    result = survey(images, "-o", path, "--resume", "--json")
    # What failed is tried again.
    assert quick == ["one.vmcore.xz", "short.vmcore"]
    whole = json.loads(survey(images, "--json").stdout)
    again = json.loads(result.stdout)
    assert [{**each, "seconds": 0} for each in again] == [{**each, "seconds": 0} for each in whole]
    second = {row["path"]: row for row in read(path).to_pylist() if row["kind"] == "dump"}
    numa = str(images / "deep" / "er" / "numa")
    assert second[numa] == first[numa]
    assert len(second) == 4
    quick.clear()

    os.utime(images / "deep" / "er" / "numa", ns=(0, 1))
    result = survey(images / "deep", "-o", path, "--resume")
    assert quick == ["short.vmcore", "numa"]
    assert "3 images, 1 of them looked at before: " in result.stdout
    # The images of an earlier run that this one was not asked for are still there.
    assert {row["path"] for row in read(path).to_pylist()} == set(second)
    quick.clear()

    survey(images / "one.vmcore.xz", "-o", path)
    assert quick == ["one.vmcore.xz"]
    assert {row["path"] for row in read(path).to_pylist()} == {str(images / "one.vmcore.xz")}


def test_resume_refuses_another_table(survey, images, quick, tmp_path, capsys):
    path = tmp_path / "fleet.parquet"
    survey(images / "one.vmcore.xz", "-o", path)
    for content in (b"PAR1 of something else", None):
        if content is None:
            CliRunner().invoke(main, ["check", str(images / "one.vmcore.xz"), "--parquet", str(path)])
        else:
            path.write_bytes(content)
        before = path.read_bytes()
        with pytest.raises(SystemExit) as end:
            main(["survey", str(images), "-o", str(path), "--resume"])
        assert end.value.code == 2
        assert capsys.readouterr().err.startswith(f"physmem: {path}: not a ")
        assert path.read_bytes() == before


def test_interrupted_work_is_kept(survey, images, monkeypatch, tmp_path):
    path = tmp_path / "fleet.parquet"

    def stopped(found, options, workers=None, timeout=None):
        yield fleet.look_at(found[0], options)
        raise KeyboardInterrupt

    monkeypatch.setattr(fleet, "locally", stopped)
    with pytest.raises(SystemExit) as end:
        main(["survey", str(images), "-o", str(path)])
    assert end.value.code == 130
    assert [row["kind"] for row in read(path).to_pylist()] == ["dump", "zone", "zone"]


_KILLED = """
import os, signal, sys
import physmem.fleet as fleet, physmem.cli.survey as verb
from physmem.cli import main
def here(found, options, workers=None, timeout=None):
    yield fleet.look_at(found[0], options)
    yield fleet.look_at(found[2], options)
    yield fleet.look_at(found[2], options)
    os.kill(os.getpid(), signal.SIGKILL)
fleet.locally, verb._CHECKPOINT = here, 2
main(sys.argv[1:])
"""


def test_a_kill_loses_what_is_not_written_yet(survey, images, quick, tmp_path, project_environment):
    path = tmp_path / "fleet.parquet"
    command = [sys.executable, "-c", _KILLED, "survey", str(images), "-o", str(path)]
    done = subprocess.run(command, env=project_environment, capture_output=True, timeout=60, check=False)
    assert done.returncode == -signal.SIGKILL
    assert [row["kind"] for row in read(path).to_pylist()] == ["dump", "zone", "zone", "dump"]
    assert set(tmp_path.iterdir()) == {images, path}
    survey(images, "-o", path, "--resume")
    assert quick == ["damaged.vmcore", "short.vmcore", "numa"]


def test_without_pyarrow_nothing_is_begun(images, quick, monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(SystemExit) as end:
        main(["survey", str(images), "-o", str(tmp_path / "fleet.parquet")])
    assert end.value.code == 2
    assert capsys.readouterr().err == "physmem: -o needs pyarrow: pip install 'physmem[parquet]'\n"
    assert quick == []


def test_checkpoints_grow_with_what_is_written(monkeypatch, survey, images, tmp_path):
    """A writing is of everything, so there are few when there is much."""
    sizes = []

    def many(found, options, workers=None, timeout=None):
        for number in range(1000):
            yield fleet.Record(f"{found[0].path}{number}", 1, 1)
        yield from (fleet.Record.failed(each, "no") for each in found)

    monkeypatch.setattr(fleet, "locally", many)
    monkeypatch.setattr(verb, "_write", lambda output, known: sizes.append(len(known)))
    survey(images, "-o", tmp_path / "fleet.parquet")
    assert sizes[-1] == 1004
    assert sum(sizes) < 12 * 1004
