# SPDX-License-Identifier: GPL-2.0-only
"""Quizzes: the same for the same seed, and every answer again by other means, from what the question tells."""

from __future__ import annotations

import json
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

KINDS = ("translate", "buddy", "watermark", "freepath")
SEEDS = (1, 2)
COUNT = 12

#: Makes all quizzes of this module in one process.
PROGRAM = """
import contextlib, io, json, sys
from kernelmm.cli import main
for line in sys.stdin:
    out, err = io.StringIO(), io.StringIO()
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            main.main(["quiz", *json.loads(line)])
    except SystemExit as end:
        print(json.dumps([end.code or 0, out.getvalue(), err.getvalue()]), flush=True)
"""


@pytest.fixture(scope="module")
def outputs(project_environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("quiz")
    sheet = str(folder / "sheet.html")
    lines: dict[str, list[str]] = {
        f"{kind} {seed}": [kind, "--seed", str(seed), "--count", str(COUNT), "--json", "--answers"]
        for kind in KINDS
        for seed in SEEDS
    }
    lines |= {
        f"translate {model} {seed}": ["translate", "--model", model, *lines[f"translate {seed}"][1:]]
        for model in ("sparsemem", "flatmem")
        for seed in SEEDS
    }
    lines |= {
        "again": ["buddy", "--seed", "1", "--count", str(COUNT), "--json", "--answers"],
        "questions": ["buddy", "--seed", "1", "--json"],
        "text": ["translate", "--seed", "1", "--count", "2"],
        "solved": ["translate", "--seed", "1", "--count", "2", "--answers"],
        "sheet": ["freepath", "--count", "2", "--html", sheet, "--answers"],
        "bad kind": ["frob"],
        "bad count": ["buddy", "--count", "0"],
        "help": ["--help"],
    }
    child = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        input="".join(json.dumps(line) + "\n" for line in lines.values()),
        env={name: value for name, value in project_environment.items() if name != "PHYSMEM_ENGINE"},
        capture_output=True,
        text=True,
        check=True,
    )
    found = dict(zip(lines, map(json.loads, child.stdout.splitlines()), strict=True))
    found["folder"] = folder
    return found


def questions(outputs: dict[str, Any], kind: str, model: str = "") -> list[dict[str, Any]]:
    found = []
    for seed in SEEDS:
        code, out, err = outputs[f"{kind} {model} {seed}" if model else f"{kind} {seed}"]
        assert (code, err) == (0, "")
        quiz = json.loads(out)
        assert (quiz["kind"], quiz["seed"], len(quiz["questions"])) == (kind, seed, COUNT)
        found += quiz["questions"]
    for question in found:
        assert len(question["asks"]) == len(question["answers"]) > 1
        assert all(question["answers"])
    return found


def test_the_seed_decides(outputs: dict[str, Any]) -> None:
    assert outputs["again"] == outputs["buddy 1"]
    assert outputs["buddy 1"] != outputs["buddy 2"]
    asked = json.loads(outputs["questions"][1])["questions"]
    solved = json.loads(outputs["buddy 1"][1])["questions"]
    assert [question["text"] for question in asked] == [question["text"] for question in solved[:5]]
    assert not any({"answers", "worked", "solution"} & question.keys() for question in asked)


@pytest.mark.parametrize("model", ["", "sparsemem", "flatmem"])
def test_translate_by_hand(outputs: dict[str, Any], model: str) -> None:
    verdicts = set()
    for question in questions(outputs, "translate", model):
        facts, solution = question["facts"], question["solution"]
        va = int(facts["va"], 16)
        entries = {int(at, 16): int(value, 16) for at, value in facts["entries"].items()}
        verdicts.add(solution["verdict"])
        if va >> 47 not in (0, (1 << 17) - 1):
            assert solution["verdict"] == "not canonical"
            continue
        table, phys, indexes = int(facts["pgd"], 16), None, []
        for shift in (39, 30, 21, 12):
            indexes.append(va >> shift & 511)
            entry = entries[table + 8 * indexes[-1]]
            if not entry & 1:
                break
            if shift == 12 or (shift < 39 and entry & 128):
                phys = (entry & 0x000FFFFFFFFFF000) >> shift << shift | va & (1 << shift) - 1
                break
            table = entry & 0x000FFFFFFFFFF000
        if phys is None:
            assert solution["verdict"] == "not present"
            continue
        assert int(solution["phys"], 16) == phys
        assert list(solution["indexes"].values()) == indexes
        section = None if model == "flatmem" else phys >> 27
        assert (solution["pfn"], solution.get("section")) == (phys // 4096, section)
        array = {"": "vmemmap", "flatmem": "mem_map", "sparsemem": f"section_mem_map of {section}"}[model]
        assert int(solution["page"], 16) == int(facts[array], 16) + phys // 4096 * 64
        start = "start_kernel_map" if va >= int(facts["start_kernel_map"], 16) else "page_offset"
        assert phys == va - int(facts[start], 16)
        assert f"PFN {phys // 4096} " in question["answers"][2]
    assert verdicts == {"mapped", "not canonical", "not present"}


def test_buddies_by_hand(outputs: dict[str, Any]) -> None:
    joined = set()
    for question in questions(outputs, "buddy"):
        facts, solution = question["facts"], question["solution"]
        free = {tuple(block) for block in facts["free"]}
        pfn, order, merged = facts["pfn"], facts["order"], []
        assert solution["buddy"] == (pfn + (1 << order) if pfn >> order & 1 == 0 else pfn - (1 << order))
        assert solution["buddy_is_free"] == ((solution["buddy"], order) in free)
        while order < 10 and (pfn ^ 1 << order, order) in free:
            merged.append([pfn ^ 1 << order, order])
            pfn &= ~(1 << order)
            order += 1
        assert solution["merged"] == merged
        assert solution["final"] == [pfn, order]
        assert question["answers"][2] == f"pfn {pfn}, order {order}"
        joined.add(len(merged))
    assert len(joined) > 1


def test_watermarks_by_hand(outputs: dict[str, Any]) -> None:
    verdicts = []
    for question in questions(outputs, "watermark"):
        f = question["facts"]
        mark = f["marks"][f["which"]]
        if f["high"]:
            mark -= mark // 2
        if f["harder"]:
            mark -= mark // 4
        left = f["free"] - 2 ** f["order"] + 1
        granted = left - f["free_cma"] > mark + f["lowmem_reserve"][f["classzone"]]
        for order in range(f["order"]):
            left -= f["nr_free"][order] * 2**order
            mark //= 2
            granted = granted and left > mark
        assert question["solution"]["granted"] == granted
        assert question["answers"][0] == ("yes" if granted else "no")
        assert question["answers"][1].endswith(": no" if granted else ": yes")
        verdicts.append(granted)
    assert {True, False} == set(verdicts)


def test_paths_by_hand(outputs: dict[str, Any]) -> None:
    places, emptied = set(), set()
    for question in questions(outputs, "freepath"):
        facts, solution = question["facts"], question["solution"]
        count, high, batch = facts["pcp"]
        functions = solution["functions"]
        assert solution["count"] == facts["count"] - 1
        places.add(solution["place"])
        if facts["count"] > 1:
            assert functions[1:] == ["put_page_testzero"]
            assert solution["place"].startswith("nowhere")
            continue
        assert functions.count("free_pages_check") == 2 ** facts["order"]
        if facts["order"] == 0:
            drained = count + 1 >= high
            assert ("free_pcppages_bulk" in functions) == drained
            assert "__free_pages_ok" not in functions
            assert solution["pcp_count"] == count + 1 - (batch if drained else 0)
            assert drained or solution["place"] == "on a per-CPU list"
        else:
            assert functions[-1] == "spin_unlock"
            assert "__free_one_page" in functions
            assert "free_hot_cold_page" not in functions
            assert solution["place"] == "on a free list"
            assert solution["pcp_count"] == count
        emptied.add("free_pcppages_bulk" in functions and high > 0)
    assert len(places) == 3
    assert emptied == {True, False}


def test_text_has_answers_only_if_asked(outputs: dict[str, Any]) -> None:
    assert "      = " not in outputs["text"][1]
    assert "   how:" not in outputs["text"][1]
    assert "1. The kernel uses the virtual address" in outputs["text"][1]
    assert "      = PGD " in outputs["solved"][1]


def test_the_sheet(outputs: dict[str, Any]) -> None:
    assert outputs["sheet"] == [0, "", ""]
    text = Path(outputs["folder"], "sheet.html").read_text()
    opened: list[str] = []

    class Balanced(HTMLParser):
        def handle_starttag(self, tag: str, attrs: object) -> None:
            if tag != "meta":
                opened.append(tag)

        def handle_endtag(self, tag: str) -> None:
            assert opened.pop() == tag

    Balanced().feed(text)
    assert not opened
    assert "http" not in text
    assert text.count('class="line"') == text.count('class="a"') == 6
    assert "break-before:page" in text


def test_bad_command_lines(outputs: dict[str, Any]) -> None:
    assert outputs["bad kind"][0] == outputs["bad count"][0] == 2
    assert outputs["bad kind"][2].startswith("kernelmm: ")
    assert "kernelmm quiz buddy --seed 7" in outputs["help"][1]
