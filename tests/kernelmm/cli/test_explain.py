# SPDX-License-Identifier: GPL-2.0-only
"""``kernelmm explain``: what it says is what ran, and what was written; its page works in a browser."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

Run = Callable[..., subprocess.CompletedProcess[str]]

OPERATIONS = "alloc GFP_KERNEL 3; free $ 3"
COMMAND = "from kernelmm.cli import main; main()"


#: Runs one command line after another, so that only the first pays for its start.
WORKER = """
import contextlib, io, json, sys
from kernelmm.cli import main
for line in sys.stdin:
    out, err = io.StringIO(), io.StringIO()
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            main.main(["explain", *json.loads(line)])
    except SystemExit as end:
        print(json.dumps([end.code or 0, out.getvalue(), err.getvalue()]), flush=True)
"""


@pytest.fixture(scope="module")
def explain(project_environment: dict[str, str]) -> Iterator[Run]:
    environment = {name: value for name, value in project_environment.items() if name != "PHYSMEM_ENGINE"}
    child = subprocess.Popen(
        [sys.executable, "-c", WORKER], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with child:
        assert child.stdin is not None
        assert child.stdout is not None

        def run(*arguments: object) -> subprocess.CompletedProcess[str]:
            print(json.dumps(list(map(str, arguments))), file=child.stdin, flush=True)
            code, out, err = json.loads(child.stdout.readline())
            return subprocess.CompletedProcess(arguments, code, out, err)

        yield run
        child.stdin.close()


@pytest.fixture(scope="module")
def image(oracle: Callable[[str], Any]) -> Path:
    path: Path = oracle("n128_s1").a
    return path


@pytest.fixture(scope="module")
def told(explain: Run, image: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    """One explanation as JSON, and its page."""
    page = tmp_path_factory.mktemp("explain") / "page.html"
    done = explain(image, OPERATIONS, "--json", "--html", page)
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout), page


# -- text ------------------------------------------------------------------------------------------


def test_the_decisive_numbers(explain: Run, image: Path) -> None:
    done = explain(image, OPERATIONS)
    assert (done.returncode, done.stderr) == (0, "")
    text = done.stdout
    for line in (
        "alloc_pages(GFP_KERNEL, 3)",
        "free_pages -= (taken << order) - 1: 24443 - ((1 << 3) - 1) = 24436",
        "free_pages - free_cma <= min_pages + reserve? 24436 - 0 <= 381 + 0: no",
        "returns pfn 27520: page 0xffffea00001ae000, memory at 0xffff880006b80000",
        "buddy_index = index ^ bit(order): 896 ^ 8 = 904",
        "page_is_buddy(page pfn 27520, buddy pfn 27528, order 3) = no",
        "buddy.private != order? 2 != 3: yes",
        "list_add_tail(pfn 27520, node 0 zone DMA32 free_area[3].free_list[Unmovable])",
        "mm_page_free: page=ffffea00001ae000 pfn=27520 order=3",
        "pfn 27520: _count 1 -> 0, private 0 -> 3, _mapcount -1 -> -128",
        "free_pages_check(pg pfn 27521) = no  (and 6 more like this)",
    ):
        assert line in text, line


@pytest.mark.parametrize("detail", [0, 1, 2, 3])
def test_each_level_tells_more(explain: Run, image: Path, detail: int) -> None:
    lines = explain(image, "free pfn:27914 0", "--detail", detail).stdout.splitlines()
    shown = "\n".join(lines)
    assert ("_count: 0 -> -1" in shown) == (detail >= 2)
    assert ("page_off(page" in shown) == (detail == 3)
    assert ("page._count == 0" in shown) == (detail >= 1)
    assert "put_page_testzero" in shown


@pytest.mark.parametrize(
    "operations",
    [
        "drain",
        "drain_all",
        "alloc GFP_HIGHUSER_MOVABLE 0; put $",
        "alloc GFP_KERNEL|__GFP_COMP|__GFP_ZERO 2; get $; put $; put $",
        "alloc GFP_ATOMIC 10 0",
        "alloc 10 11",
        "reclaim",
        "compact 9",
    ],
)
def test_every_operation(explain: Run, image: Path, operations: str) -> None:
    done = explain(image, operations, "--detail", 1)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) > 3


def test_errors_end_it_and_are_told(explain: Run, image: Path) -> None:
    done = explain(image, "alloc GFP_KERNEL 0; put $; put $", "--debug-vm")
    assert (done.returncode, done.stderr) == (1, "")
    assert "stopped: " in done.stdout
    assert "VM_BUG_ON_PAGE(atomic_read(&page->_count) == 0)" in done.stdout


@pytest.mark.parametrize(
    ("operations", "reason"),
    [
        ("frob 1", "'frob 1': no operation 'frob'"),
        ("free", "'free': expected 'free ADDR ORDER'"),
        ("free $ 0", "'free $ 0': $: nothing was allocated before"),
        ("free $4 0", "there are 0 operations before"),
        ("free 12 0", "nothing"),
        ("free ffff880006b80000", "which order?"),
        ("free ffff880006b80000 11", "order '11': expected a number from 0 to 10"),
        ("free zz 0", "'zz': not an address"),
        ("alloc GFP_NONE 0", "'GFP_NONE' is no gfp mask"),
        ("alloc GFP_KERNEL 3 7", "the machine has no node 7"),
        ("drain 5", "'drain 5': expected 'drain'"),
        ("  ;  ", "no operation to explain"),
    ],
)
def test_bad_operations(explain: Run, image: Path, operations: str, reason: str) -> None:
    done = explain(image, operations)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("kernelmm: ")
    assert reason == "nothing" or reason in done.stderr


def test_help_has_an_example(explain: Run) -> None:
    shown = explain("--help").stdout
    assert 'kernelmm explain A.vmcore.xz "alloc GFP_KERNEL 3"' in shown
    assert "drain_all_pages" in shown


# -- what it says is what happened -----------------------------------------------------------------

#: Frees a block of order 3 while the profiler writes down every function of the allocator that begins.
LOG = """
import json, sys
from physmem import engine
engine.select("interpreted")
from kernelmm import Machine
from kernelmm.gfp import GFP_KERNEL
ROOMS = ("kernelmm.core.", "kernelmm.pressure.")
FLOOR = ("physmem.address", "physmem.word", "physmem.list_head")
machine = Machine.attach(sys.argv[1])
page = machine.alloc_pages(GFP_KERNEL, 3)
addr = machine.page_address(page)
log, depth = [], 0

def profile(frame, event, _):
    global depth
    if frame.f_code.co_name.startswith("<"):
        return
    module = frame.f_globals.get("__name__", "")
    if event == "call":
        if module.startswith(ROOMS) or (depth and module in FLOOR):
            log.append(frame.f_code.co_name)
            depth += 1
    elif event == "return" and depth and (module.startswith(ROOMS) or module in FLOOR):
        depth -= 1

sys.setprofile(profile)
machine.free_pages(addr, 3)
sys.setprofile(None)
print(json.dumps(log))
"""


def test_exactly_the_functions_that_ran_in_order(
    told: tuple[dict[str, Any], Path], image: Path, project_environment: dict[str, str]
) -> None:
    child = subprocess.run(
        [sys.executable, "-c", LOG, str(image)],
        env={name: value for name, value in project_environment.items() if name != "PHYSMEM_ENGINE"},
        capture_output=True,
        text=True,
        check=True,
    )
    log = json.loads(child.stdout)
    calls = [call for top in told[0]["operations"][1]["calls"] for call in walk(top)]
    # The tracepoints are on while it is explained, and look at nothing that the path would not.
    assert [call["function"] for call in calls] == log
    shown = [call["function"] for call in calls if not call["detail"]]
    assert shown[:4] == ["free_pages", "__free_pages", "put_testzero", "__free_pages_ok"]
    assert [name for name in log if name in set(shown)] == shown
    assert shown.count("free_pages_check") == 8


def walk(call: dict[str, Any]) -> list[dict[str, Any]]:
    found = [call]
    for line in call["lines"]:
        for part in line["parts"]:
            if "lines" in part:
                found += walk(part)
    return found


def changes(call: dict[str, Any]) -> list[dict[str, Any]]:
    found = []
    for line in call["lines"]:
        for part in line["parts"]:
            found += changes(part) if "lines" in part else [part]
    return found


#: Performs the same operations and prints every word of memory that is different afterwards.
BYTES = """
import json, sys
import numpy as np
from kernelmm import Machine
from kernelmm.gfp import GFP_KERNEL
machine = Machine.attach(sys.argv[1])
before = np.frombuffer(machine.ram.as_u8, np.uint8).copy()
addr = machine.page_address(machine.alloc_pages(GFP_KERNEL, 3))
between = np.frombuffer(machine.ram.as_u8, np.uint8).copy()
machine.free_pages(addr, 3)
after = np.frombuffer(machine.ram.as_u8, np.uint8)
for old, new in ((before, between), (between, after)):
    print(json.dumps([[int(at), int(old[at]), int(new[at])] for at in np.flatnonzero(old != new)]))
"""


def test_every_byte_that_changed_was_told(
    told: tuple[dict[str, Any], Path], image: Path, project_environment: dict[str, str]
) -> None:
    """Without any watching, and by the compiled engine if there is one, the memory ends the same."""
    child = subprocess.run(
        [sys.executable, "-c", BYTES, str(image)], env=project_environment, capture_output=True, text=True, check=True
    )
    for operation, line in zip(told[0]["operations"], child.stdout.splitlines(), strict=True):
        memory: dict[int, list[int]] = {}
        for call in operation["calls"]:
            for change in changes(call):
                at, size, old, new = change["raw"]
                for i in range(size):
                    memory.setdefault(at + i, [old >> 8 * i & 255, 0])[1] = new >> 8 * i & 255
        assert sorted([at, old, new] for at, (old, new) in memory.items() if old != new) == json.loads(line)


def test_change_the_code_and_the_explanation_changes(
    image: Path, project_environment: dict[str, str], tmp_path: Path
) -> None:
    """A copy of the package in which a buddy is found another way."""
    root = Path(__file__).parents[3]
    for package in ("kernelmm", "physmem"):
        (tmp_path / package).mkdir()
        for path in (root / package).rglob("*"):
            if path.suffix in (".py", ".json", ".html") and path.name != "_built.json":
                copy = tmp_path / path.relative_to(root)
                copy.parent.mkdir(parents=True, exist_ok=True)
                copy.write_bytes(path.read_bytes())
    room = tmp_path / "kernelmm" / "core" / "buddy.py"
    text = room.read_text()
    assert "buddy_index = index ^ word.bit(order)" in text
    changed = "# Half of the two.\n        buddy_index = (index | word.bit(order)) - (index & word.bit(order))"
    room.write_text(text.replace("buddy_index = index ^ word.bit(order)", changed))
    done = subprocess.run(
        [sys.executable, "-c", COMMAND, "explain", str(image), "alloc GFP_KERNEL 3; free $", "--detail", "2"],
        env={**project_environment, "PYTHONPATH": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "(896 | 8) - (896 & 8) = 904" in done.stdout
    assert "# Half of the two." in done.stdout


# -- the page --------------------------------------------------------------------------------------


def test_the_page_is_self_contained(told: tuple[dict[str, Any], Path]) -> None:
    text = told[1].read_text()
    assert "http:" not in text
    assert "https:" not in text
    assert "src=" not in text
    assert text.count("<script>") == 1


def test_the_page_steps_forward_and_back(told: tuple[dict[str, Any], Path], browser: Any) -> None:
    with browser.open(told[1]) as page:
        assert page.problems == []
        count = int(page.evaluate("film.steps.length"))
        assert page.text("#count") == f"step 0 of {count}"
        assert page.evaluate("document.querySelector('#back').disabled")
        page.click("#forward")
        assert page.text("#count") == f"step 1 of {count}"
        assert page.text("#step .text").startswith("__alloc_pages_nodemask(gfp_mask GFP_KERNEL, order 3")
        assert page.text("#calls li.now") == "__alloc_pages_nodemask"
        page.press("ArrowRight")
        page.press("ArrowRight")
        assert page.text("#count") == f"step 3 of {count}"
        page.press("ArrowLeft")
        assert page.text("#count") == f"step 2 of {count}"
        page.click("#back")
        page.click("#back")
        assert page.text("#count") == f"step 0 of {count}"
        # From the end and back to the beginning, everything is as it was.
        start = page.evaluate("document.querySelector('#state').innerHTML")
        page.press("End")
        assert page.text("#count") == f"step {count} of {count}"
        assert page.evaluate("document.querySelector('#forward').disabled")
        assert page.text("#result") == "done"
        page.press("Home")
        assert page.evaluate("document.querySelector('#state').innerHTML") == start
        assert page.problems == []


def test_the_page_shows_lists_and_pages_as_they_were(told: tuple[dict[str, Any], Path], browser: Any) -> None:
    cell = '.cell[data-pfn="27520"]'
    lists = "[...document.querySelectorAll('table.lists tr')].map(r => r.innerText)"
    with browser.open(told[1]) as page:
        assert page.evaluate(f"document.querySelector('{cell}').className") == "cell head"
        assert page.text(cell) == "3"
        before = page.evaluate(lists)
        assert any("nr_free 3" in row and "27520" in row for row in before)
        # To where the allocation ends: its count is 1.
        while page.evaluate(f"document.querySelector('{cell}').className") != "cell used hit":
            page.press("PageDown")
        assert "_count" in page.text("#writes")
        assert not any("27520" in row for row in page.evaluate(lists))
        page.press("End")
        assert page.text(cell) == "3"
        assert any("nr_free 3" in row and "27520" in row for row in page.evaluate(lists))
        page.click("#calls li:nth-child(2)")
        assert page.text("#count").startswith("step 1 of")


def test_hovering_tells_about_a_page(told: tuple[dict[str, Any], Path], browser: Any) -> None:
    with browser.open(told[1]) as page:
        assert page.evaluate("getComputedStyle(document.querySelector('#tip')).display") == "none"
        page.hover('.cell[data-pfn="27523"]')
        assert page.evaluate("getComputedStyle(document.querySelector('#tip')).display") == "block"
        tip = page.text("#tip")
        assert "pfn 27523 (0x6b83)" in tip
        assert "ffffea00001ae0c0" in tip
        assert "inside the free block of order 3 headed at pfn 27520" in tip
        assert page.count(".cell.block") == 8
        page.hover('.cell[data-pfn="27520"]')
        assert "_mapcount -128 (PageBuddy)" in page.text("#tip")
        assert page.text(".chip.here") == "27520"
        page.hover("h1")
        assert page.evaluate("getComputedStyle(document.querySelector('#tip')).display") == "none"


def test_a_hostile_name_stays_text(explain: Run, image: Path, tmp_path: Path, browser: Any) -> None:
    evil = tmp_path / "<img src=x onerror=document.title='owned'>.vmcore.xz"
    evil.write_bytes(image.read_bytes())
    assert explain(evil, "alloc GFP_KERNEL 0", "--detail", 0, "--html", tmp_path / "page.html").returncode == 0
    with browser.open(tmp_path / "page.html") as page:
        assert page.evaluate("document.title") == "alloc_pages(GFP_KERNEL, 0)"
        assert "<img src=x" in page.text("#about")
