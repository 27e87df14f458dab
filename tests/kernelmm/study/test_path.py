# SPDX-License-Identifier: GPL-2.0-only
"""The path of a call is the one that was taken: checked against functions that note when they are called."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

from kernelmm.study.path import Step

#: Wraps functions of the core so that they write their names into a list, and watches a call at the same time.
PROGRAM = """
import json, sys
from physmem import engine
engine.select("interpreted")
from kernelmm import Machine
from kernelmm.core import buddy, free, pcp
from kernelmm.gfp import GFP_KERNEL
from kernelmm.study.path import watch

noted = []

def note(module, name):
    original = getattr(module, name)
    def wrapper(*arguments):
        noted.append(name)
        return original(*arguments)
    setattr(module, name, wrapper)

machine = Machine.attach(sys.argv[1])
page = machine.alloc_pages(GFP_KERNEL, 3)
for module, name in ((free, "__free_pages"), (free, "__free_pages_ok"), (free, "free_pages_prepare"),
                     (free, "free_one_page"), (buddy, "__free_one_page"), (free, "free_hot_cold_page")):
    note(module, name)
result, steps = watch(lambda: machine.free_block(page, 3))
print(json.dumps([result, noted, [list(step) for step in steps], sys.getprofile() is None]))
"""


def test_names_and_order_are_those_of_an_independent_log(
    oracle: Callable[[str], Any], project_environment: dict[str, str]
) -> None:
    child = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(oracle("n128_s1").a)],
        env={name: value for name, value in project_environment.items() if name != "PHYSMEM_ENGINE"},
        capture_output=True,
        text=True,
        check=True,
    )
    result, noted, steps, unwatched = json.loads(child.stdout)
    assert result is None
    assert unwatched, "the profiler is taken off again"
    assert noted == ["__free_pages_ok", "free_pages_prepare", "free_one_page", "__free_one_page"]
    assert [name for _, name, _ in steps if name in noted] == noted
    # Who calls whom.
    depth = {name: depth for depth, name, _ in steps}
    assert depth["__free_pages"] == 0
    assert depth["__free_pages_ok"] == 1
    assert depth["free_pages_prepare"] == depth["free_one_page"] == 2
    assert depth["__free_one_page"] == 3
    assert ["free_pages_check", 8] in [[name, times] for _, name, times in steps]


def test_a_step_is_a_line() -> None:
    assert str(Step(0, "free_pages")) == "free_pages"
    assert str(Step(2, "free_pages_check", 8)) == "    free_pages_check x 8"


def test_the_compiled_engine_cannot_be_watched(project_environment: dict[str, str]) -> None:
    program = (
        "from physmem import engine\n"
        "engine._chosen = 'compiled'\n"
        "from kernelmm.study.path import watch\n"
        "from physmem.errors import UsageError\n"
        "try: watch(lambda: None)\n"
        "except UsageError as error: print(error)\n"
    )
    child = subprocess.run(
        [sys.executable, "-c", program], env=project_environment, capture_output=True, text=True, check=True
    )
    assert child.stdout == "only the interpreted engine's path can be watched\n"
