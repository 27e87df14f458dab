# SPDX-License-Identifier: GPL-2.0-only
"""What the README and the documentation show is what happens: their commands and sessions are run.

A ``console`` block is commands after ``$`` and what they print, ``...`` standing for anything; a
``pycon`` block is a Python session.
"""

from __future__ import annotations

import doctest
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(console|pycon)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
#: Two commands of the README that are this very test run, or contain it.
SET_UP = ("make demo", "make test")


def blocks(kind: str) -> list[object]:
    found = []
    for page in PAGES:
        for number, match in enumerate(BLOCK.finditer(page.read_text())):
            if match[1] == kind:
                found.append(pytest.param(match[2], id=f"{page.name}-{number}"))
    return found


def commands(text: str) -> list[tuple[str, str]]:
    """Each command of a block with what it is to print."""
    parts = re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]
    return [(command, expected) for command, _, expected in (part.partition("\n") for part in parts)]


@pytest.mark.parametrize("text", blocks("console"))
def test_commands_print_what_is_shown(text: str, tmp_path: Path) -> None:
    # Images are named as from the checkout; what a command writes goes to a directory of its own.
    for name in ("tests", "kernelmm", "physmem", "tools"):
        (tmp_path / name).symlink_to(ROOT / name)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    for command, expected in commands(text):
        if command in SET_UP:
            continue
        done = subprocess.run(
            command,
            shell=True,
            cwd=tmp_path,
            env={**os.environ, "PATH": path, "COLUMNS": "120"},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        got = done.stdout + done.stderr
        assert doctest.OutputChecker().check_output(expected, got, doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE), (
            f"$ {command}\nexpected:\n{expected}\ngot:\n{got}"
        )


@pytest.mark.parametrize("text", blocks("pycon"))
def test_sessions_print_what_is_shown(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("tests", "kernelmm"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)
    test = doctest.DocTestParser().get_doctest(text, {}, "session", None, 0)
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    report: list[str] = []
    runner.run(test, out=report.append)
    assert runner.summarize(verbose=False).failed == 0, "".join(report)


def test_the_setup_commands_come_first() -> None:
    """After two sentences, the two commands that do all set-up."""
    text = (ROOT / "README.md").read_text()
    shown = [command for match in BLOCK.finditer(text) if match[1] == "console" for command, _ in commands(match[2])]
    assert tuple(shown[:2]) == SET_UP
