# SPDX-License-Identifier: GPL-2.0-only
"""Explanations from Python: on a copy, by either engine, of the slow paths too; and how they are shown."""

from __future__ import annotations

import ast
import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kernelmm import Machine
from kernelmm.gfp import GFP_KERNEL
from kernelmm.study.explain_calls import parse_gfp, parse_requests
from kernelmm.study.explain_model import Explanation
from kernelmm.study.explain_source import Replay, Unknown, function_of
from kernelmm.study.explain_steps import steps
from kernelmm.study.explain_text import text
from physmem.errors import PhysmemError, UsageError


@pytest.fixture(scope="module")
def machine() -> Machine:
    return Machine.boot("32M")


@pytest.fixture(scope="module")
def explained(machine: Machine, tmp_path_factory: pytest.TempPathFactory) -> tuple[Explanation, Path, bool]:
    """An explanation on a copy, its page, and whether the machine is as it was."""
    path = tmp_path_factory.mktemp("explain") / "page.html"
    before = hashlib.sha256(machine.ram.as_u8).digest()
    found = machine.explain("alloc GFP_KERNEL 2", "free $", html=path)
    return found, path, hashlib.sha256(machine.ram.as_u8).digest() == before


def test_the_machine_stays_as_it_is(machine: Machine, explained: tuple[Explanation, Path, bool]) -> None:
    found, path, unchanged = explained
    assert unchanged
    assert "function move(to)" in path.read_text()
    # What was foretold is what happens.
    page = machine.alloc_pages(GFP_KERNEL, 2)
    assert page is not None
    assert found.operations[0].result is not None
    assert found.operations[0].result.startswith(f"pfn {machine.page_to_pfn(page)}: page {page:#x}")
    machine.free_block(page, 2)
    assert not found.failed


def test_json_and_back(explained: tuple[Explanation, Path, bool]) -> None:
    found = explained[0]
    again = Explanation.from_json(json.loads(json.dumps(found.to_json())))
    assert again == found
    assert list(text(again, 3)) == list(text(found, 3))
    assert repr(again) == "<Explanation: alloc GFP_KERNEL 2; free $>"
    assert str(again).startswith("alloc_pages(GFP_KERNEL, 2)\n")


def test_a_notebook_shows_a_tree(explained: tuple[Explanation, Path, bool]) -> None:
    html = explained[0]._repr_html_()
    assert html.count("<details") == html.count("</details>") > 20
    assert "<b>__rmqueue_smallest</b>" in html
    assert "<script" not in html


def test_steps_tell_every_word_once(explained: tuple[Explanation, Path, bool]) -> None:
    found = explained[0]
    told = [change.raw for step in steps(found)[0] for change in step.changes]
    assert told == [change.raw for operation in found.operations for change in operation.changes()]


def test_mistakes(machine: Machine) -> None:
    with pytest.raises(UsageError, match="no operation 'frob'"):
        machine.explain("frob")
    with pytest.raises(PhysmemError, match="the machine has no node 3"):
        machine.explain("alloc GFP_KERNEL 0 3")


#: Explains the slow paths, on a machine with a file in its page cache.
PRESSURE = """
import json, sys
from physmem import engine
engine.select("interpreted")
from kernelmm import Machine
from kernelmm.pressure.workload import Workload
from kernelmm.study.explain import explain
from kernelmm.study.pressure_demo import exhaust
machine = Machine.boot("24M")
work = Workload(machine.mm)
file = work.open()
file.read(0, 8)
exhaust(machine.mm)
cached = file.nrpages
found = explain(machine, "reclaim; kswapd; drain_all; compact 4; alloc GFP_ATOMIC 0")
functions = [list(operation.functions()) for operation in found.operations]
print(json.dumps([cached, file.nrpages, [o.result for o in found.operations], [o.error for o in found.operations],
                  functions]))
"""


def test_reclaim_kswapd_and_compaction(project_environment: dict[str, str]) -> None:
    child = subprocess.run(
        [sys.executable, "-c", PRESSURE],
        env={name: value for name, value in project_environment.items() if name != "PHYSMEM_ENGINE"},
        capture_output=True,
        text=True,
        check=True,
    )
    before, after, results, errors, functions = json.loads(child.stdout)
    assert errors == [None] * 5
    reclaimed = int(results[0].partition(" ")[0])
    assert before - after == reclaimed == 8
    assert functions[0][0] == "try_to_free_pages"
    for name in ("shrink_zone", "shrink_page_list", "free_hot_cold_page"):
        assert name in functions[0], name
    assert "balance_pgdat" in functions[1]
    assert functions[2][:2] == ["drain_all_pages", "has_pcps"]
    assert "compact_zone" in functions[3]
    assert functions[4][0] == "__alloc_pages_nodemask"


#: Makes the film of a page twice: as it is made, and looking at everything at each step.
FILM = """
import sys
from physmem import engine
engine.select("interpreted")
from kernelmm import Machine
from kernelmm.study import explain_steps
from kernelmm.study.explain import explain
machine = Machine.attach(sys.argv[1])
operations = "alloc GFP_KERNEL 3; free $; alloc GFP_HIGHUSER_MOVABLE 0; alloc GFP_KERNEL 4; put $3; free $4"
found = explain(machine, operations)
made = explain_steps.film(machine, found)
look = explain_steps._Scene.look
explain_steps._Scene.look = lambda self, before=None, changes=(): look(self)
print(made == explain_steps.film(machine, found), len(made["steps"]), sum(bool(step["d"]) for step in made["steps"]))
"""


def test_a_step_that_looks_at_what_changed_misses_nothing(
    oracle: Callable[[str], Any], project_environment: dict[str, str]
) -> None:
    child = subprocess.run(
        [sys.executable, "-c", FILM, str(oracle("n128_s0_small").a)],
        env={name: value for name, value in project_environment.items() if name != "PHYSMEM_ENGINE"},
        capture_output=True,
        text=True,
        check=True,
    )
    same, count, changed = child.stdout.split()
    assert same == "True"
    assert int(count) > int(changed) > 20


# -- reading the source again ----------------------------------------------------------------------


def worked(source: str, names: dict[str, Any], reads: tuple[int, ...] = (), calls: tuple[Any, ...] = ()) -> Any:
    replay = Replay(names, list(reads), list(calls), lambda value, name: str(value))
    return replay.run(ast.parse(source, mode="eval").body)


@pytest.mark.parametrize(
    ("source", "value", "shown"),
    [
        ("a ^ 1 << b", 12, "4 ^ (1 << 3)"),
        ("(a - b) * 2", 2, "(4 - 3) * 2"),
        ("a < b < c", False, "4 < 3"),
        ("not a", False, "not 4"),
        ("-a", -4, "-4"),
        ("~a & 7", 3, "~4 & 7"),
        ("a == 4 or f(b)", True, "4 == 4"),
        ("a == 5 or b", 3, "4 == 5 or 3"),
        ("a if b else c", 4, "4"),
        ("max(a, b)", 4, "4"),
        ("mm.as_u64[(a + 8) >> 3] & 1", 1, "9 & 1"),
        ("f(g(a)) + 1", 21, "20 + 1"),
    ],
)
def test_an_expression_with_its_values(source: str, value: int, shown: str) -> None:
    calls = (("g", 10), ("f", 20)) if "g(" in source else ()
    names = {"a": 4, "b": 3, "c": 9, "mm": object()}
    assert worked(source, names, (9,), calls) == (value, shown)


@pytest.mark.parametrize("source", ["x", "a.b", "f(1)", "[1]", "a + None", "lambda: 1", "mm.as_u64[0]"])
def test_what_is_not_known_is_not_guessed(source: str) -> None:
    with pytest.raises(Unknown):
        worked(source, {"a": 1, "mm": object()})


def test_a_function_as_its_source_has_it() -> None:
    function = function_of(parse_gfp.__code__)
    assert (function.name, function.kernel, function.file) == ("parse_gfp", "parse_gfp", "explain_calls.py")
    assert function.about.startswith("A gfp mask: names joined by |")
    assert "mask = 0" in function.source.values()


@pytest.mark.parametrize(
    ("text", "mask"),
    [
        ("GFP_KERNEL", 0xD0),
        ("GFP_KERNEL|__GFP_ZERO", 0x80D0),
        ("GFP_ZERO", 0x8000),
        ("d0", 0xD0),
        ("0x200da", 0x200DA),
        ("GFP_NOWAIT", 0),
    ],
)
def test_gfp(text: str, mask: int) -> None:
    assert parse_gfp(text) == mask


def test_requests() -> None:
    verbs = [request.verb for request in parse_requests("drain; # nothing\n\nalloc d0 0;free $")]
    assert verbs == ["drain", "alloc", "free"]
    with pytest.raises(UsageError, match="65 operations: at most 64"):
        parse_requests("drain;" * 65)


# -- machines and pages in a notebook ---------------------------------------------------------------


def test_a_machine_and_a_page_have_html(machine: Machine, oracle: Callable[[str], Any]) -> None:
    shown = machine._repr_html_()
    assert "node 0 zone DMA32" in shown
    page = machine.alloc_pages(GFP_KERNEL)
    assert page is not None
    html = machine.page(page)._repr_html_()
    assert f"struct page {page:#x} of pfn {machine.page_to_pfn(page)}" in html
    assert "<td>_count</td><td>1</td>" in html
    assert machine.translate(machine.page_address(page)).frame.pfn == machine.page_to_pfn(page)  # type: ignore[union-attr]
    machine.free_block(page)
