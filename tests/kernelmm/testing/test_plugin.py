# SPDX-License-Identifier: GPL-2.0-only
"""The pytest plugin, run on tests of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

pytest_plugins = ["pytester"]

HEAD = """\
import pytest
from kernelmm.gfp import GFP_KERNEL, __GFP_COMP as COMP
"""


@pytest.fixture
def run(pytester: pytest.Pytester) -> Callable[..., pytest.RunResult]:
    """Run tests with the plugin."""

    def make(body: str, *args: str) -> pytest.RunResult:
        pytester.makepyfile(HEAD + body)
        return pytester.runpytest("-p", "kernelmm.testing.plugin", "--strict-markers", *args)

    return make


def test_a_good_test_passes(run: Callable[..., pytest.RunResult]) -> None:
    result = run(
        """
def test_pages(machine):
    page = machine.alloc_pages(GFP_KERNEL, order=2)
    machine.free_block(page, 2)
    assert machine.debug_vm

def test_split_exact_and_compound(machine):
    addr = machine.alloc_pages_exact(3 * 4096, GFP_KERNEL)
    machine.free_pages_exact(addr, 3 * 4096)
    page = machine.alloc_pages(GFP_KERNEL | COMP, order=3)
    machine.get_page(page)
    machine.put_page(page)
    machine.put_page(page)
    with machine.trace() as tracer:
        machine.free_pages(machine.get_free_pages(GFP_KERNEL))
    assert [event.name for event in tracer.events][-1] == "mm_page_free"
"""
    )
    result.assert_outcomes(passed=2)


def test_a_leak_fails_it_and_says_where(run: Callable[..., pytest.RunResult]) -> None:
    result = run("def test_leak(machine):\n    machine.alloc_pages(GFP_KERNEL, order=2)\n")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["1 leak:", "*4 pages at pfn *, order 2, GFP_USER, allocated at *.py:4 in test_leak"])


def test_a_leak_may_be_allowed(run: Callable[..., pytest.RunResult]) -> None:
    body = (
        '@pytest.mark.machine(memory="32M", leaks="{}")\ndef test_leak(machine):\n    machine.alloc_pages(GFP_KERNEL)\n'
    )
    run(body.format("allowed")).assert_outcomes(passed=1)
    result = run(body.format("none"))
    result.stdout.fnmatch_lines(["*leaks='none'*"])
    result.assert_outcomes(errors=1)


def test_a_wrong_free_fails_it(run: Callable[..., pytest.RunResult]) -> None:
    result = run(
        """
@pytest.mark.machine(debug_vm=False, leaks="allowed")
def test_twice(machine):
    page = machine.alloc_pages(GFP_KERNEL)
    machine.free_block(page)
    machine.free_block(page)

@pytest.mark.machine(debug_vm=False, check=False)
def test_too_small(machine):
    page = machine.alloc_pages(GFP_KERNEL, 3)
    machine.free_block(page, 2)

def test_assertion(machine):
    page = machine.alloc_pages(GFP_KERNEL)
    machine.free_block(page)
    machine.free_block(page)
"""
    )
    result.assert_outcomes(failed=3)
    result.stdout.fnmatch_lines(
        ["1 wrong free:", "*.py:8 in test_twice: *", "*findings of physmem check:", "  list_link: *"], consecutive=False
    )
    result.stdout.fnmatch_lines(["*Freed with order 2, allocated with order 3*", "*4 of 8 pages at pfn*"])
    result.stdout.fnmatch_lines(["*VmBugOn*"])


def test_damage_fails_it(run: Callable[..., pytest.RunResult]) -> None:
    result = run(
        """
@pytest.mark.machine(image=__import__("os").environ["IMAGE"])
def test_damage(machine):
    machine.ram.write(machine.dump.virt_to_phys(machine.pfn_to_page(2048)) + 28, b"\\1")
"""
    )
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["1 finding of physmem check:", "*pfn 2048*"])


@pytest.fixture(autouse=True)
def _image(oracle: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMAGE", str(oracle("n128_s1").a))


def test_a_failure_of_the_tests_own_comes_first_and_the_report_is_beside_it(
    run: Callable[..., pytest.RunResult],
) -> None:
    body = "def test_own(machine):\n    machine.alloc_pages(GFP_KERNEL)\n    assert 1 == 2\n"
    skip = "def test_skip(machine):\n    machine.alloc_pages(GFP_KERNEL)\n    pytest.skip('not today')\n"
    result = run(f"{body}{skip}", "-rfs")
    result.assert_outcomes(failed=1, skipped=1)
    result.stdout.fnmatch_lines(
        ["*assert 1 == 2", "*- Captured machine call -*", "1 leak:", "*1 page at pfn *, allocated at *.py:4 in *"]
    )
    result.stdout.fnmatch_lines(["FAILED *::test_own*"])


def test_a_machine_that_cannot_be_looked_at(run: Callable[..., pytest.RunResult]) -> None:
    result = run(
        """
def test_wiped(machine):
    machine.ram.write(machine.dump.virt_to_phys(machine.dump.symbols["node_data"]), bytes(64))
    for name in ("pgdats", "max_pfn", "memmap"):
        machine.dump.__dict__.pop(name, None)
    assert False
"""
    )
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*assert False", "*node_data: 0 nodes*"])
