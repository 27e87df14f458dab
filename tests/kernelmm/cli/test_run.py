# SPDX-License-Identifier: GPL-2.0-only
"""``kernelmm run``: what it writes, what it says, how it ends, and what it leaves behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from kernelmm.cli import main
from physmem import engine
from physmem.image import open_image


def kernelmm(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture
def case(oracle: Callable[[str], Any]) -> Any:
    return oracle("n128_s1")


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty directory to work in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def listing(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


# -- when all is well ---------------------------------------------------------------


def test_results_and_memory(case: Any, files: Path) -> None:
    done = kernelmm("run", case.a, case.script, "--expect", case.result, "--results", "r.txt", "-o", "out.vmcore")
    assert (done.exit_code, done.stdout) == (0, "2000 operations; of 1206 allocations 0 failed\n")
    assert Path("r.txt").read_text() == case.result.read_text()
    with open_image("out.vmcore") as ours, open_image(case.b) as theirs:
        assert ours.ranges == theirs.ranges
        assert ours.notes == theirs.notes
        marker = case.symbols["pgtest_marker"] - 0xFFFFFFFF80000000
        for start, end in ours.ranges:
            mine, other = bytearray(ours.read(start, end - start)), theirs.read(start, end - start)
            if start <= marker < end:
                mine[marker - start] = 1
            assert mine == other
    assert listing(files) == ["out.vmcore", "r.txt"]


def test_results_on_standard_output(oracle: Callable[[str], Any]) -> None:
    case = oracle("n128_s0_small")
    done = kernelmm("run", case.a, case.script, "--results", "-")
    assert (done.exit_code, done.stdout) == (0, case.result.read_text())
    assert done.stderr.endswith("32 operations; of 20 allocations 0 failed\n")


def test_the_console(oracle: Callable[[str], Any], files: Path) -> None:
    case = oracle("n128_s10_bad")
    done = kernelmm("run", case.a, case.script, "--dmesg", "log")
    assert done.exit_code == 0
    assert Path("log").read_text() == case.file("console.txt").read_text()
    done = kernelmm("run", case.a, case.script)
    assert "the kernel printed 8 lines (--dmesg FILE keeps them)" in done.stdout


def test_the_trace(oracle: Callable[[str], Any], files: Path) -> None:
    case = oracle("n128_s1_trace")
    assert kernelmm("run", case.a, case.script, "--trace", "trace.txt").exit_code == 0
    lines = Path("trace.txt").read_text().splitlines()
    assert lines[0] == "# tracer: nop"
    ours = [line.split(": ", 1)[1] for line in lines if not line.startswith("#")]
    theirs = [line.split(": ", 1)[1] for line in case.file("trace.txt").read_text().splitlines() if ": mm" in line]
    assert len(ours) == 2888
    start = theirs.index(ours[0])
    while theirs[start : start + len(ours)] != ours:
        start = theirs.index(ours[0], start + 1)


def test_json(case: Any) -> None:
    done = kernelmm("run", case.a, case.script, "--expect", case.result, "--json")
    assert json.loads(done.stdout) == {
        "script": str(case.script),
        "engine": engine.current(),
        "operations": 2000,
        "allocations": 1206,
        "failed": 0,
        "console": [],
        "difference": None,
    }


def test_an_image_can_be_written_over_itself(case: Any, files: Path) -> None:
    Path("image.vmcore").write_bytes(b"")
    assert kernelmm("run", case.a, case.script, "-o", "image.vmcore").exit_code == 0
    assert kernelmm("run", "image.vmcore", case.script, "-o", "image.vmcore").exit_code == 0
    assert listing(files) == ["image.vmcore"]


def test_an_empty_script(case: Any, files: Path) -> None:
    Path("empty").write_text("# nothing\n\n")
    done = kernelmm("run", case.a, "empty", "--results", "r.txt")
    assert (done.exit_code, done.stdout) == (0, "0 operations; of 0 allocations 0 failed\n")
    assert Path("r.txt").read_text() == ""


# -- a difference -------------------------------------------------------------------


def test_the_first_difference_is_shown(case: Any, files: Path) -> None:
    lines = case.result.read_text().splitlines()
    lines[16] = "a 5060 1 2 2"
    lines[18] = "and later ones are not"
    Path("other.txt").write_text("\n".join(lines))
    done = kernelmm("run", case.a, case.script, "--expect", "other.txt", "-o", "out.vmcore")
    assert done.exit_code == 1
    script_line = case.script.read_text().splitlines()[17]
    assert done.stdout.splitlines()[1] == (
        f"other.txt: line 17: expected 'a 5060 1 2 2', got 'a 5060 1 2 1' from line 18 of the script, '{script_line}'"
    )
    # The script did run: its memory is kept, to be looked at.
    assert listing(files) == ["other.txt", "out.vmcore"]
    found = json.loads(kernelmm("run", case.a, case.script, "--expect", "other.txt", "--json").stdout)
    assert found["difference"] == {
        "line": 17,
        "expected": "a 5060 1 2 2",
        "got": "a 5060 1 2 1",
        "script_line": 18,
        "operation": script_line,
    }


def test_lines_without_result_are_not_counted(case: Any, files: Path) -> None:
    Path("script").write_text("# comment\nI\nT 0\n\na 0 -1 0 208\nd\n")
    Path("expected").write_text("a 1 1 1 1\n")
    done = kernelmm("run", case.a, "script", "--expect", "expected")
    assert "expected: line 1: expected 'a 1 1 1 1', got 'a 5074 0 2 1' from line 5 of the script" in done.stdout


def test_results_that_end_too_soon_or_too_late(oracle: Callable[[str], Any], files: Path) -> None:
    case = oracle("n128_s0_onefree")
    lines = case.result.read_text().splitlines()
    Path("short").write_text(lines[0] + "\n")
    Path("long").write_text("\n".join([*lines, "d -1 0 -1 -1"]))
    Path("spaced").write_text("\n".join(line.replace(" ", "\t  ") for line in lines) + "\n\n")
    done = kernelmm("run", case.a, case.script, "--expect", "short")
    assert done.exit_code == 1
    assert f"short: line 2: expected the end, got '{lines[1]}' from line 3 of the script" in done.stdout
    done = kernelmm("run", case.a, case.script, "--expect", "long")
    assert done.exit_code == 1
    assert done.stdout.endswith("long: line 3: expected 'd -1 0 -1 -1', got the end\n")
    assert kernelmm("run", case.a, case.script, "--expect", "spaced").exit_code == 0


# -- bad input ------------------------------------------------------------------------


def refused(done: Result, *words: str) -> None:
    """One line on standard error, with these words in it, and exit status 2."""
    assert done.exit_code == 2, done.output
    assert done.stdout == ""
    lines = [line for line in done.stderr.splitlines() if "interpreted engine runs" not in line]
    assert len(lines) == 1, lines
    assert lines[0].startswith("kernelmm: ")
    for word in words:
        assert word in lines[0]


OUTPUTS = ("--results", "r.txt", "-o", "out.vmcore", "--trace", "t.txt", "--dmesg", "d.txt")

BAD_SCRIPTS = {
    "an unknown operation": ("q 1\n", "line 1: unknown operation 'q'"),
    "a long name": ("alloc 0 0 0 208\n", "line 1: unknown operation 'alloc'"),
    "too few words": ("a 0 0 0\n", "line 1: expected 'a newid nid order gfp', found 3 arguments"),
    "too many words": ("d 1\n", "line 1: expected 'd', found 1 arguments"),
    "an unknown id": ("a 0 0 0 208\nf 1 0\n", "line 2: unknown id 1"),
    "an id used before": ("f 0 0\na 0 0 0 208\n", "line 1: unknown id 0"),
    "no number": ("a 0 0 x 208\n", "line 1: order 'x' is not a number"),
    "gfp in no base": ("a 0 0 0 20g\n", "line 1: gfp '20g' is not a number"),
    "a large gfp": ("a 0 0 0 100000000\n", "line 1: gfp 100000000 is not between"),
    "a large order": ("a 0 0 12 208\n", "line 1: order 12 is not between 0 and 11"),
    "freeing what no block can be": ("a 0 0 0 208\nf 0 11\n", "line 2: order 11 is not between 0 and 10"),
    "a negative order": ("a 0 0 -1 208\n", "line 1: order -1 is not between"),
    "a large id": ("a 268435456 0 0 208\n", "line 1: newid 268435456 is not between"),
    "a negative id": ("a -1 0 0 208\n", "line 1: newid -1 is not between"),
    "ids beyond the last": ("a 0 0 2 208\nS 0 2 268435454\n", "line 2: id 268435457 is above"),
    "a node that is not there": ("a 0 -1 0 208\n# twice\na 1 1 0 208\n", "line 3: the machine has no node 1"),
    "a CPU that is not there": ("T 1\n", "line 1: the machine has no online CPU 1"),
    "an unknown field": ("a 0 0 0 208\nx 0 0 q 1\n", "line 2: unknown field 'q'"),
    "a value too large": ("a 0 0 0 208\nx 0 0 c 2147483648\n", "line 2: value 2147483648 is not between"),
    "a zone that is not there": ("n 4 1\n", "line 1: zoneidx 4 is not between 0 and 3"),
    "a page outside the block's largest": ("a 0 0 0 208\nG 0 2048\n", "line 2: k 2048 is not between"),
    "digits of another script": ("a 0 0 0 ２０８ 1\n", "line 1: expected 'a newid nid order gfp'"),
    "no text": ("\x00\x01\x02\n", "line 1: unknown operation"),
}


@pytest.mark.parametrize(("script", "message"), BAD_SCRIPTS.values(), ids=BAD_SCRIPTS)
def test_malformed_scripts(case: Any, files: Path, script: str, message: str) -> None:
    Path("script").write_text(script)
    refused(kernelmm("run", case.a, "script", *OUTPUTS), f"script: {message}")
    assert listing(files) == ["script"]


def test_binary_rubbish_for_a_script(case: Any, files: Path) -> None:
    Path("script").write_bytes(bytes(range(128, 256)) * 100)
    refused(kernelmm("run", case.a, "script", *OUTPUTS), "script: line 1: unknown operation")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty"),
        (b"MZ and so on", "not a memory image"),
        (b"\x7fELF", "truncated"),
        (b"\xfd7zXZ\x00and no more", "xz"),
    ],
)
def test_bad_images(case: Any, files: Path, content: bytes, message: str) -> None:
    Path("image").write_bytes(content)
    refused(kernelmm("run", "image", case.script, *OUTPUTS), "image: ", message)
    assert listing(files) == ["image"]


@pytest.mark.parametrize("missing", ["image", "script", "expect", "layout", "symbols"])
def test_missing_files(case: Any, files: Path, missing: str) -> None:
    given = {
        "image": case.a,
        "script": case.script,
        "expect": case.result,
        "layout": None,
        "symbols": case.file("symbols.json"),
        missing: "nowhere",
    }
    options = [word for name in ("expect", "layout", "symbols") if given[name] for word in (f"--{name}", given[name])]
    refused(kernelmm("run", given["image"], given["script"], *options, *OUTPUTS), "nowhere: ", "No such file")
    assert listing(files) == []


@pytest.mark.parametrize("option", ["--results", "-o", "--trace", "--dmesg"])
def test_outputs_that_cannot_be_written(case: Any, files: Path, option: str) -> None:
    others = [word for pair in zip(OUTPUTS[::2], OUTPUTS[1::2], strict=True) if pair[0] != option for word in pair]
    refused(kernelmm("run", case.a, case.script, option, "no/such/file", *others), "no/such/file: cannot be written")
    assert listing(files) == []


def test_one_file_cannot_be_two_outputs(case: Any, files: Path) -> None:
    refused(kernelmm("run", case.a, case.script, "--results", "x", "-o", "./x"), "one file cannot be two outputs")
    refused(kernelmm("run", case.a, case.script, "--results", "-", "--json"), "both want standard output")


def test_an_operation_that_fails_says_where(case: Any, files: Path) -> None:
    """A double free, with the kernel's assertions on; the page's number is the script's."""
    Path("script").write_text("# twice\na 0 -1 0 208\nf 0 0\nf 0 0\n")
    assert kernelmm("run", case.a, "script").exit_code == 0
    done = kernelmm("run", case.a, "script", "--debug-vm", *OUTPUTS)
    refused(done, "script: line 4: pfn 5074: kernel BUG at include/linux/mm.h:340!")
    assert listing(files) == ["script"]


def test_a_range_with_pages_in_use_is_busy_where_they_cannot_move(case: Any, files: Path) -> None:
    # PFN 5062 is on an LRU list, and who maps it is not in the image.
    Path("script").write_text("a 0 -1 0 d0\nL 1 5056 5072 2\n")
    done = kernelmm("run", case.a, "script", "--results", "results")
    assert done.exit_code == 0
    assert Path("results").read_text().splitlines()[1] == "L 5056 2 2 -16"


def test_bad_command_lines(case: Any) -> None:
    refused(kernelmm("run"), "IMAGE")
    refused(kernelmm("run", case.a), "SCRIPT")
    refused(kernelmm("run", case.a, case.script, "--nonsense"), "--nonsense")
    refused(kernelmm("run", case.a, case.script, "--engine", "steam"), "steam")
    refused(kernelmm("runs"), "runs")


# -- the engine -----------------------------------------------------------------------


def run_in_a_process(environment: dict[str, str], *arguments: object) -> subprocess.CompletedProcess[str]:
    program = [sys.executable, "-P", "-c", "from kernelmm.cli import main; main()"]
    clean = {name: value for name, value in environment.items() if name != "PHYSMEM_ENGINE"}
    return subprocess.run([*program, *map(str, arguments)], env=clean, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("name", engine.ENGINES)
def test_the_engine_is_the_users_choice(case: Any, project_environment: dict[str, str], name: str) -> None:
    if name not in engine.available():
        pytest.skip(str(engine.why_interpreted()))
    done = run_in_a_process(project_environment, "run", case.a, case.script, "--engine", name, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["engine"] == name


def test_the_interpreted_engine_says_once_that_it_is_a_makeshift(
    case: Any, project_environment: dict[str, str], tmp_path: Path
) -> None:
    """A copy of the packages without extension modules, as on a machine without a compiler."""
    root = Path(__file__).parents[3]
    for package in ("physmem", "kernelmm"):
        for path in (root / package).rglob("*"):
            if path.is_file() and path.suffix in (".py", ".json") and "__pycache__" not in path.parts:
                target = tmp_path / path.relative_to(root)
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(path.read_bytes())
    environment = {**project_environment, "PYTHONPATH": str(tmp_path)}
    done = run_in_a_process(environment, "run", case.a, case.script, "--expect", case.result)
    assert done.returncode == 0
    assert done.stderr == (
        "kernelmm: the interpreted engine runs: the compiled engine was not built here (that needs a C compiler)\n"
    )
    # Who asks for it need not be told.
    assert run_in_a_process(environment, "run", case.a, case.script, "--engine", "interpreted").stderr == ""
    done = run_in_a_process(environment, "run", case.a, case.script, "--engine", "compiled")
    assert done.returncode == 2
    assert done.stderr.startswith("kernelmm: engine compiled: the compiled engine was not built here")


# -- a terminal -------------------------------------------------------------------------


def test_a_long_script_shows_its_progress_on_a_terminal(
    oracle: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from kernelmm import Machine
    from kernelmm.cli import run

    monkeypatch.setattr(run, "_LONG", 1)
    case = oracle("n128_s0_small")
    with Machine.attach(case.a) as machine:
        script = machine.start(case.script)
        run.perform(script, show_progress=True)
        assert script.finished
        assert "running" in capfd.readouterr().err
        run.perform(machine.start(case.script), show_progress=False)
        assert capfd.readouterr().err == ""


def test_help_has_an_example() -> None:
    text = kernelmm("run", "--help").stdout
    assert "kernelmm run A.vmcore script.txt --expect result.txt -o B.vmcore" in text
    assert os.linesep in text
