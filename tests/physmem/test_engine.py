# SPDX-License-Identifier: GPL-2.0-only
"""Which engine runs: asked for, by the environment, or the better one; and never a stale one."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from physmem import engine

ROOT = Path(__file__).parents[2]
ROOM = "physmem.space"
#: Prints what Python has loaded a hot room from.
WHICH = "import physmem.space; from physmem import engine; print(engine.current(), physmem.space.__file__)"


@pytest.fixture
def packages(tmp_path: Path) -> Path:
    """A copy of physmem: sources, and extension modules if there are any."""
    shutil.copytree(ROOT / "physmem", tmp_path / "physmem", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "kernelmm", tmp_path / "kernelmm", ignore=shutil.ignore_patterns("__pycache__", "*.xz"))
    return tmp_path


def python(program: str, root: Path, environment: dict[str, str], **variables: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in environment.items() if name != "PHYSMEM_ENGINE"}
    return subprocess.run(
        [sys.executable, "-P", "-W", "error", "-c", program],
        env={**clean, "PYTHONPATH": str(root), "PYTHONDONTWRITEBYTECODE": "1", **variables},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def compiled(packages: Path) -> Path:
    """The copy, if it has a compiled engine."""
    missing = engine.why_interpreted()
    if missing:
        pytest.skip(missing)
    return packages


@pytest.fixture
def uncompiled(packages: Path) -> Path:
    """The copy, without its extension modules."""
    for path in packages.rglob("*.so"):
        path.unlink()
    return packages


def test_without_extension_modules_the_sources_run(uncompiled: Path, project_environment: dict[str, str]) -> None:
    done = python(WHICH, uncompiled, project_environment)
    assert (done.stdout, done.stderr) == (f"interpreted {uncompiled}/physmem/space.py\n", "")
    done = python(
        "from physmem import engine; print(engine.available(), engine.why_interpreted())",
        uncompiled,
        project_environment,
    )
    assert done.stdout == "('interpreted',) the compiled engine was not built here (that needs a C compiler)\n"


@pytest.mark.parametrize("name", engine.ENGINES)
def test_the_environment_chooses(compiled: Path, project_environment: dict[str, str], name: str) -> None:
    ran, file = python(WHICH, compiled, project_environment, PHYSMEM_ENGINE=name).stdout.split()
    assert (ran, file.endswith(".py")) == (name, name == "interpreted")


def test_the_better_one_is_the_default(compiled: Path, project_environment: dict[str, str]) -> None:
    assert python(WHICH, compiled, project_environment).stdout.startswith("compiled ")


@pytest.mark.parametrize("name", engine.ENGINES)
def test_a_choice_beats_the_environment(compiled: Path, project_environment: dict[str, str], name: str) -> None:
    program = f"from physmem import engine; engine.select({name!r}); " + WHICH
    other = engine.ENGINES[1 - engine.ENGINES.index(name)]
    assert python(program, compiled, project_environment, PHYSMEM_ENGINE=other).stdout.split()[0] == name


def test_once_chosen_it_stays(compiled: Path, project_environment: dict[str, str]) -> None:
    program = "from physmem.engine import select; select('interpreted'); select('interpreted'); select('compiled')"
    done = python(program, compiled, project_environment)
    assert "UsageError: engine compiled: the interpreted one is already running in this process" in done.stderr


def test_engines_that_cannot_be(uncompiled: Path, project_environment: dict[str, str]) -> None:
    done = python("from physmem import engine; engine.select('steam')", uncompiled, project_environment)
    assert "UsageError: engine 'steam': there are compiled and interpreted" in done.stderr
    done = python("from physmem import engine; engine.select('compiled')", uncompiled, project_environment)
    assert "UsageError: engine compiled: the compiled engine was not built here" in done.stderr
    done = python(WHICH, uncompiled, project_environment, PHYSMEM_ENGINE="steam")
    assert "UsageError: engine 'steam'" in done.stderr


def test_what_was_not_written_to_since_is_not_read(compiled: Path, project_environment: dict[str, str]) -> None:
    record = compiled / "physmem/_built.txt"
    lines = record.read_text().splitlines()
    wrong = [f"00000000-{line.partition(' ')[0].partition('-')[2]} {line.partition(' ')[2]}" for line in lines[1:]]
    for begun, used in ((time.time_ns() + 10**9, "compiled"), (0, "interpreted")):
        record.write_text("\n".join([str(begun), *wrong]) + "\n")
        assert python(WHICH, compiled, project_environment).stdout.split()[0] == used
    # Of another size, it has been, whatever the clock says.
    record.write_text("\n".join([str(time.time_ns() + 10**9), wrong[0].replace("-", "-9", 1), *wrong[1:]]) + "\n")
    assert python(WHICH, compiled, project_environment).stdout.split()[0] == "interpreted"


@pytest.mark.parametrize("change", ["a room", "a declaration", "no record", "a broken record"])
def test_a_stale_build_is_not_used(compiled: Path, project_environment: dict[str, str], change: str) -> None:
    record = compiled / "physmem/_built.txt"
    if change == "a room":
        name = "kernelmm/core/buddy.py"
        (compiled / name).write_text((compiled / name).read_text() + "\n# changed\n")
    elif change == "a declaration":
        name = "physmem/word.pxd"
        (compiled / name).write_text((compiled / name).read_text() + "\n# changed\n")
    else:
        name = "_built.txt"
        record.unlink()
        if change == "a broken record":
            record.write_text("[")
    done = python(WHICH + "; print(engine.why_interpreted())", compiled, project_environment)
    assert done.stdout.split()[0] == "interpreted"
    assert f"the compiled engine is stale: {name} has changed since it was built" in done.stdout


def test_the_record_has_every_room() -> None:
    """A source that is not in the record could change unnoticed."""
    missing = engine.why_interpreted()
    if missing:
        pytest.skip(missing)
    recorded = [line.split(" ", 1)[1] for line in (ROOT / "physmem/_built.txt").read_text().splitlines()[1:]]
    rooms = [
        path.relative_to(ROOT).as_posix()
        for package in ("physmem", "kernelmm")
        for path in (ROOT / package).rglob("*.py")
        if path.read_text().split("\n", 2)[1:2] == ["# room: compiled"]
    ]
    assert set(rooms) <= set(recorded)
    assert ROOM.replace(".", "/") + ".py" in rooms
