# SPDX-License-Identifier: GPL-2.0-only
"""kernelmm page-owner, and the debugging options of kernelmm boot."""

from __future__ import annotations

import json
from pathlib import Path

from click.testing import CliRunner

from kernelmm.cli import main


def run(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(main, arguments)
    return result.exit_code, result.stdout, result.stderr


def test_records_of_a_saved_machine(tmp_path: Path) -> None:
    image = str(tmp_path / "m.vmcore")
    code, out, _ = run(
        "boot", "--mem", "32M", "--page-owner", "--debug-pagealloc", "--guardpage-minorder", "1", "-o", image
    )
    assert code == 0
    assert "Setting debug_guardpage_minorder to 1" in out
    code, out, _ = run("page-owner", image)
    assert code == 0
    assert out.startswith("Page allocated via order 0, mask 0x0\nPFN ")
    code, told, _ = run("page-owner", image, "--json")
    assert code == 0
    records = json.loads(told)
    assert len(records) == out.count("Page allocated via")
    assert records[0].keys() == {"pfn", "block", "migratetype", "fallback", "order", "gfp_mask", "stack"}
    assert "[kernelmm.boot]" in records[0]["stack"][0]


def test_an_image_without_owners(tmp_path: Path) -> None:
    image = str(tmp_path / "m.vmcore")
    assert run("boot", "--mem", "32M", "-o", image)[0] == 0
    code, _, err = run("page-owner", image)
    assert (code, "page_owner is not on" in err) == (2, True)


def test_options_that_cannot_be() -> None:
    code, _, err = run("boot", "--mem", "32M", "--guardpage-minorder", "3")
    assert (code, "needs debug_pagealloc" in err) == (2, True)
    code, _, err = run("boot", "--mem", "32M", "--fail-page-alloc", "1,2")
    assert (code, "expected <interval>,<probability>,<space>,<times>" in err) == (2, True)
