# SPDX-License-Identifier: GPL-2.0-only
"""``kernelmm validate``."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from kernelmm.cli import main
from kernelmm.validate.checks import CHECKS


@pytest.fixture
def validate() -> Callable[..., Result]:
    return lambda *args: CliRunner().invoke(main, ["validate", *map(str, args)])


@pytest.fixture
def judge(validate: Callable[..., Result], oracle: Callable[[str], Any]) -> Callable[..., Result]:
    """Judge frees on the memory of n128_s1."""
    return lambda *args: validate("--image", oracle("n128_s1").a, *args)


def test_a_wrong_free(judge: Callable[..., Result]) -> None:
    result = judge("free ffff880006d0a000 0")
    assert result.exit_code == 1
    assert "free ffff880006d0a000 0: wrong (pfn 27914, order 0)" in result.stdout
    assert "VM_BUG_ON_PAGE(atomic_read(&page->_count) == 0)" in result.stdout


def test_several_as_json(judge: Callable[..., Result]) -> None:
    result = judge("--json", "free pfn:27914", "free phys:0x6d0a000 0", "__free_pages ffffea00001b4280 0", "free 0 0")
    told = json.loads(result.stdout)
    assert result.exit_code == 1
    assert [one["pfn"] for one in told] == [27914, 27914, 27914, None]
    assert [one["verdict"] for one in told] == ["wrong", "wrong", "wrong", "note"]
    assert [check["check"] for check in told[0]["checks"]] == list(CHECKS)
    assert told[0]["kernel"]["fate"] == "miscounted"
    assert told[0]["kernel_debug_vm"]["where"] == "include/linux/mm.h:340"


def test_a_right_one(judge: Callable[..., Result]) -> None:
    # In use since boot.
    result = judge("--json", "free pfn:26624")
    assert result.exit_code == 0
    assert json.loads(result.stdout)[0]["right"]


@pytest.mark.parametrize(
    ("what", "reason"),
    [
        ("free", "expected 'free ADDR ORDER'"),
        ("free pfn:1 0 0", "expected 'free ADDR ORDER'"),
        ("kfree pfn:1", "expected 'free ADDR ORDER'"),
        ("free pfn:1 one", "order 'one' is not a number"),
        ("free pfn:1 -1", "order -1"),
        ("free 0x123g 0", "not an address"),
        ("__free_pages ffff880000000000 0", "not a struct page"),
        ("free pfn:0xfffffffffff 0", "beyond what the direct map can reach"),
        ("", "expected 'free ADDR ORDER'"),
    ],
)
def test_what_is_no_free(judge: Callable[..., Result], what: str, reason: str) -> None:
    result = judge(what)
    assert result.exit_code == 2
    assert reason in result.stderr
    assert result.stderr.count("\n") == 1


def test_the_checks_are_listed(validate: Callable[..., Result]) -> None:
    result = validate("--checks")
    assert result.exit_code == 0
    assert len(result.stdout.splitlines()) == len(CHECKS) + 1


def test_a_trace(validate: Callable[..., Result], oracle: Callable[[str], Any], tmp_path: Any) -> None:
    trace = oracle("n128_s1_trace").file("trace.txt")
    result = validate(trace)
    assert result.exit_code == 0
    assert result.stdout.endswith("clean: no event contradicts another\n")
    assert validate("--no-leaks", trace).exit_code == 1
    lines = trace.read_text().splitlines(keepends=True)
    wrong = tmp_path / "wrong.txt"
    wrong.write_text("".join([*lines, "nonsense\n", next(line for line in lines if ": mm_page_free:" in line)]))
    assert validate(wrong).exit_code == 2
    told = json.loads(validate("--json", "--skip-bad", wrong).stdout)
    assert told["malformed_lines"] == 1
    assert not told["clean"]


def test_a_trace_as_history(judge: Callable[..., Result], oracle: Callable[[str], Any]) -> None:
    owner = oracle("n128_s1_trace").file("trace.txt")
    told = json.loads(judge("--json", "--owner", owner, "free pfn:26624").stdout)
    assert {check["check"]: check["status"] for check in told[0]["checks"]}["owner"] != "not asked"


def test_a_free_needs_an_image(validate: Callable[..., Result]) -> None:
    result = validate("free pfn:5 0")
    assert result.exit_code == 2
    assert "--image IMAGE" in result.stderr


def test_another_kernel_has_another_free_path(validate: Callable[..., Result]) -> None:
    image = Path(__file__).parents[2] / "data" / "vmcores" / "deb612-256m" / "image.vmcore.xz"
    result = validate("--image", image, "free pfn:4096 0")
    assert result.exit_code == 1
    lines = result.stdout.splitlines()
    assert lines[0] == "judged as by Linux 6.12, built without CONFIG_DEBUG_VM; check_pages_enabled is on"
    assert lines[1] == "free pfn:4096 0: wrong (pfn 4096, order 0)"
    assert "'nonzero mapcount'" in result.stdout
    checks = json.loads(validate("--image", image, "--checks", "--json").stdout)
    assert {check["check"]: check["where"] for check in checks}["type"] == "free_page_is_bad"


def test_something_must_be_asked(validate: Callable[..., Result]) -> None:
    result = validate()
    assert result.exit_code == 2
    assert "expected a TRACE, or --image IMAGE and a FREE" in result.stderr


def test_standard_input(oracle: Callable[[str], Any], project_environment: dict[str, str]) -> None:
    def run(data: bytes) -> subprocess.CompletedProcess[bytes]:
        command = [sys.executable, "-m", "kernelmm", "validate", "-"]
        return subprocess.run(command, input=data, env=project_environment, capture_output=True, check=False)

    done = run(oracle("n128_s1_trace").file("trace.txt").read_bytes())
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.endswith(b"clean: no event contradicts another\n")
    owner = run(b"Page allocated via order 2, mask 0x2084d0\nPFN 4096 Block 8 type 0\n")
    assert owner.returncode == 0
    assert b"4 pages" in owner.stdout
    wrong = run(b"x\n")
    assert wrong.returncode == 2
    assert wrong.stderr.startswith(b"kernelmm: standard input: line 1: expected a line like")


def test_a_trace_between_images(validate: Callable[..., Result], oracle: Callable[[str], Any], tmp_path: Path) -> None:
    case = oracle("n128_s1_trace")
    ends = ["--before", case.a, "--after", case.b, "--since", "0.570257", "--until", "0.580940"]
    assert validate(case.file("trace.txt"), *ends).exit_code == 0
    # Without the span, the image of the beginning is not that of the trace's.
    result = validate("--json", case.file("trace.txt"), *ends[:4])
    assert result.exit_code == 1
    assert json.loads(result.stdout)["counts"]["other_start"] > 0
