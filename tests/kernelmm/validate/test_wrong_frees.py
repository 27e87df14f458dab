# SPDX-License-Identifier: GPL-2.0-only
"""Every kind of wrong free: the judge names it, and what the engines then do is what it foretold."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kernelmm.validate.checks import CHECKS
from kernelmm.validate.kinds import KINDS, Later
from kernelmm.validate.verdict import Fate
from physmem import engine
from tools import wrong_frees

CHILD = Path(__file__).with_name("wrong_frees.py")


@pytest.fixture(scope="module", params=engine.available())
def told(request: Any, oracle: Callable[[str], Any], project_environment: dict[str, str]) -> Any:
    """What was said and what happened, by kind, with one of the engines."""
    done = subprocess.run(
        [sys.executable, CHILD, oracle("n128_s1").a],
        env={**project_environment, "PHYSMEM_ENGINE": request.param},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_there_are_many() -> None:
    assert len(KINDS) >= 25
    assert {kind.check for kind in KINDS.values()} <= set(CHECKS)


@pytest.mark.parametrize("name", KINDS)
def test_the_judge_names_the_check_and_changes_nothing(told: Any, name: str) -> None:
    verdict = told[name]["verdict"]
    found = [check["check"] for check in verdict["checks"] if check["status"] in ("wrong", "suspect")]
    assert KINDS[name].check in found
    assert not verdict["right"]
    assert told[name]["unchanged"]


@pytest.mark.parametrize("name", KINDS)
def test_the_kernel_does_what_was_foretold(told: Any, name: str) -> None:
    kind, said, done = KINDS[name], told[name]["verdict"]["kernel"], told[name]["plain"]
    assert said["fate"] == kind.plain.name.lower()
    assert said["text"] == kind.text
    assert done["fate"] == {Fate.MISCOUNTED: "not freed"}.get(kind.plain, said["fate"])
    # The kernel reports 60 pages in a burst.
    foretold = [[page["pfn"], page["reason"]] for page in said["bad_pages"]][:60]
    assert done.get("bad", []) == foretold


@pytest.mark.parametrize("name", KINDS)
def test_with_debug_vm_it_stops_where_was_foretold(told: Any, name: str) -> None:
    kind, said, done = KINDS[name], told[name]["verdict"]["kernel_debug_vm"], told[name]["debug_vm"]
    assert said["where"] == kind.debug_vm
    assert done.get("where", "") == kind.debug_vm
    if not kind.debug_vm:
        assert done["fate"] == told[name]["plain"]["fate"]
    if "drained" in done:
        assert f"when the list is drained ({done['drained']})" in " ".join(said["later"])


@pytest.mark.parametrize("name", KINDS)
def test_the_damage_surfaces_as_was_foretold(told: Any, name: str) -> None:
    kind, said = KINDS[name], " ".join(told[name]["verdict"]["kernel"]["later"])
    pfn, later = told[name]["verdict"]["pfn"], told[name].get("later")
    if kind.later is Later.STOPPED:
        assert later is None
        return
    if kind.later is Later.AT_ALLOCATION:
        assert later["bad"] == [[pfn, "nonzero _count"]]
        assert 0 not in later["got"]
        assert "check_new_page" in said
    elif kind.later is Later.AT_FREE:
        assert later["at_free"] == [[pfn, "nonzero _count"]]
        assert 0 not in later["got"]
        assert "free_pages_check" in said
    elif kind.later is Later.LOST:
        lost = {"order 0 for 3": range(1, 8), "order 2 for 3": range(4, 8)}
        lost |= {"compound page as a page": range(1, 4), "compound page in half": range(4, 8)}
        assert not set(later["got"]) & set(lost.get(name, [0]))
        assert later["bad"] == []
        assert "lost" in said
    elif kind.later is Later.MARK:
        assert later["rules"] == ["free_without_buddy"]
        assert 0 not in later["got"]
        assert "lost its mark" in said
    elif kind.later in (Later.LISTS, Later.TWICE):
        assert "block_overlap" in later["rules"]
        assert later["twice"] or "broke" in later
        assert "twice" in said or "again" in said
    elif kind.later is Later.ZONES:
        assert "list_zone" in later["rules"]
        assert "does not belong" in said
    else:
        assert later["rules"] == []
        assert later["bad"] == []
        assert "broke" not in later


def test_the_page_has_the_table() -> None:
    text = wrong_frees.PAGE.read_text()
    assert wrong_frees.BEGIN + wrong_frees.table() + wrong_frees.END in text
