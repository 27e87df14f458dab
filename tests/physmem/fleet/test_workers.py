# SPDX-License-Identifier: GPL-2.0-only
"""Who looks at images: processes of this machine, and Dask clusters; and what becomes of those that fail."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
import warnings
from pathlib import Path

import pytest

from physmem.cli import main
from physmem.errors import UnsupportedError, UsageError
from physmem.fleet import Options, find, locally, look_at, on_cluster, record
from physmem.fleet.find import Found
from physmem.fleet.rows import COLUMNS

ORACLE = Path(__file__).parents[2] / "data" / "oracle"
IMAGE = str(ORACLE / "n128_s1" / "A.vmcore.xz")


class Fate(Found):
    """An image that does something to the process that gets it."""

    def __init__(self, path, act, *args):
        super().__init__(path, 1, 2)
        object.__setattr__(self, "fate", (act, args))

    def __reduce__(self):
        return self.fate


def test_a_process_that_dies_is_a_record():
    images = [
        *(Fate("killed", signal.raise_signal, signal.SIGKILL), Fate("left", os._exit, 3)),
        *find([IMAGE]),
        Found("/nowhere/at all", -1, 0),
    ]
    found = {each.path: each for each in locally(images, Options(), workers=2)}
    assert found["killed"].error == ("the process that looked at it was ended by SIGKILL, as when memory runs out")
    assert found["left"].error == "the process that looked at it ended with status 3"
    assert (found["left"].size, found["left"].mtime_ns) == (1, 2)
    assert found["/nowhere/at all"].error == "/nowhere/at all: cannot be read: No such file or directory"
    assert found[IMAGE].clean
    assert len(found[IMAGE].zones) == 2


def test_an_image_is_given_up_in_time():
    (found,) = locally([Fate("slow", time.sleep, 600)], Options(), timeout=0.5)
    assert found.error.startswith("given up after ")


def test_nothing_is_left_running():
    stream = locally([Fate("killed", os._exit, 1), Fate("slow", time.sleep, 600)], Options(), workers=2)
    assert next(stream).path == "killed"
    assert len(multiprocessing.active_children()) == 1
    stream.close()
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (MemoryError(), "out of memory"),
        (MemoryError("Unable to\nallocate"), "out of memory: Unable to allocate"),
        (ZeroDivisionError("division by zero"), "internal error: ZeroDivisionError: division by zero"),
    ],
)
def test_what_nobody_has_thought_of_is_a_record(monkeypatch, error, told):
    def fail(dump):
        raise error

    monkeypatch.setattr(record, "check", fail)
    found = look_at(*find([IMAGE]), Options())
    assert found.error == told
    # What was found out before is there.
    assert (found.release, found.cpus, len(found.zones), found.counts) == ("4.0.0", 1, 2, None)


def test_images_in_pieces_have_their_names(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_bytes(bytes(4096))
    two.write_bytes(bytes(8192))
    os.utime(two, ns=(0, 5))
    os.utime(one, ns=(0, 7))
    assert find([f"{one},{two}"]) == [Found(f"{one},{two}", 12288, 7)]
    assert find([f"{one}@100000,{two}@200000"]) == [Found(f"{one}@100000,{two}@200000", 12288, 7)]
    assert find([tmp_path]) == []
    with pytest.raises(UsageError, match="no such file"):
        find([f"{one},{tmp_path}/three"])


@pytest.fixture
def cluster():
    with warnings.catch_warnings():
        # Dask's own, about what it finds on this machine or in its dependencies.
        warnings.filterwarnings("ignore", module=r"(distributed|dask|tornado|bokeh)\b")
        distributed = pytest.importorskip("distributed", reason="Dask is not installed (extra: fleet)")
        with distributed.LocalCluster(
            n_workers=1, threads_per_worker=2, processes=False, dashboard_address=None, protocol="tcp"
        ) as running:
            yield running


def test_a_dask_cluster(cluster, capsys, tmp_path):
    short = tmp_path / "short.vmcore"
    short.write_bytes(b"\x7fELF")
    with pytest.raises(SystemExit) as end:
        main(["survey", IMAGE, str(short), "--scheduler", cluster.scheduler_address])
    out, err = capsys.readouterr()
    assert end.value.code == 1
    assert out.endswith("2 images: 1 clean, 0 with findings, 1 failed\n")
    assert f": {short}: " in err
    theirs = {each.path: each for each in on_cluster(find([IMAGE]), Options(), cluster.scheduler_address)}
    mine = look_at(*find([IMAGE]), Options())
    theirs[IMAGE].seconds = mine.seconds
    assert theirs == {IMAGE: mine}


def test_a_scheduler_that_is_not_there():
    pytest.importorskip("distributed", reason="Dask is not installed (extra: fleet)")
    with pytest.raises(UsageError, match=r"no Dask scheduler at tcp://127\.0\.0\.1:1: "):
        list(on_cluster(find([IMAGE]), Options(), "tcp://127.0.0.1:1", timeout=0.5))


def test_without_dask(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(UnsupportedError, match=r"--scheduler needs Dask: pip install 'physmem\[fleet\]'"):
        list(on_cluster(find([IMAGE]), Options(), "tcp://127.0.0.1:1"))


def test_every_column_is_explained():
    page = (Path(__file__).parents[3] / "docs" / "fleets.md").read_text()
    assert [name for name in COLUMNS if f"`{name}`" not in page] == []
