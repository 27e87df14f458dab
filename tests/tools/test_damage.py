# SPDX-License-Identifier: GPL-2.0-only
"""The runs on damaged memory, a few of each sort; and what would be found is found."""

from __future__ import annotations

import ctypes
import random
from collections.abc import Callable

import pytest

from physmem.errors import CorruptionError, PhysmemError
from tools import damage, soak


@pytest.mark.parametrize(
    "name", ["oracle/n128cma_s17_contig", "oracle404/everything_nodes", "busy 128M", "later deb510-512m"]
)
def test_damaged_memory_ends_well_or_with_our_own_error(name: str) -> None:
    patient = damage.PATIENTS[name]()
    for run in range(3):
        wrong, ending, _ = damage.run_once(patient, f"7 {name} {run}")
        assert not wrong
        assert ending == "ok" or all("Error=" in each for each in ending.split())


def test_a_run_is_decided_by_its_name() -> None:
    patient = damage.PATIENTS["busy 128M"]()
    assert [damage.run_once(patient, "1 2 3")[:2] for _ in range(2)] == [damage.run_once(patient, "1 2 3")[:2]] * 2


class Bad:
    """A patient that ends in one way."""

    def __init__(self, end: Callable[[], object]) -> None:
        self.end = end

    def treat(self, chance: random.Random) -> None:
        self.end()


def raised(error: Exception) -> None:
    raise error


def forever() -> None:
    while True:
        pass


@pytest.mark.parametrize(
    ("end", "found"),
    [
        (lambda: ctypes.string_at(0), "killed by SIGSEGV"),
        (lambda: raised(KeyError("pfn")), "KeyError: 'pfn'"),
        (lambda: raised(AssertionError("of the package")), "AssertionError: of the package"),
        (lambda: raised(PhysmemError("two\nlines")), "not one line"),
        (lambda: bytearray(2 << 30), "MemoryError"),
        (forever, "in forever"),
    ],
)
def test_what_is_a_finding(monkeypatch: pytest.MonkeyPatch, end: Callable[[], object], found: str) -> None:
    monkeypatch.setattr(damage, "CPU_SECONDS", 1)
    wrong, _, _ = damage.run_once(Bad(end), "")
    assert found in wrong
    assert (end is forever) == wrong.startswith("no end in 1 seconds")


def test_what_is_none(capsys: pytest.CaptureFixture[str]) -> None:
    assert damage.run_once(Bad(lambda: None), "")[:2] == ("", "ok")
    assert damage.run_once(Bad(lambda: raised(CorruptionError("rule", "why"))), "")[:2] == ("", "CorruptionError=1")
    # The soak test knows what it has allocated; that damage makes its books wrong is no wonder.
    books = compile("def f(): assert False", soak.__file__, "exec")
    space: dict[str, Callable[[], None]] = {}
    exec(books, space)
    assert damage.run_once(Bad(space["f"]), "")[:2] == ("", "AssertionError=1")


def test_the_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    patients = {"bad": lambda: Bad(lambda: raised(KeyError())), "good": lambda: Bad(lambda: None)}
    monkeypatch.setattr(damage, "PATIENTS", patients)
    monkeypatch.setattr("sys.argv", ["damage", "--seconds", "0.01", "--seed", "5"])
    assert damage.main() == 1
    said = capsys.readouterr().out
    assert "FOUND: --seed 5 --patient 'bad' --run 0: Traceback" in said
    monkeypatch.setattr("sys.argv", ["damage", "--seed", "5", "--patient", "bad", "--run", "0"])
    assert damage.main() == 1
    monkeypatch.setattr("sys.argv", ["damage", "--seed", "5", "--patient", "good", "--run", "0"])
    assert damage.main() == 0
    assert "ok in 0" in capsys.readouterr().out
