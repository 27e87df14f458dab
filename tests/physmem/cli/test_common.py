# SPDX-License-Identifier: GPL-2.0-only
"""How a program ends, and how it prints: for both command lines."""

from __future__ import annotations

import errno
import json
import re
import sys
import types

import click
import numpy as np
import pytest
from click.testing import CliRunner

from physmem.cli import common
from physmem.errors import AbsentError, UsageError


def make_program(monkeypatch, function, *decorators):
    """A program with one verb, ``act``, that calls a function."""
    command = click.command(epilog=common.example("prog act"))(function)
    for decorator in decorators:
        decorator(command)
    module = types.ModuleType("verb_for_a_test")
    module.command = command
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return common.Program("prog", {"act": module.__name__}, "A program for a test.")


def invoke(program, *args):
    return CliRunner().invoke(program, args)


@pytest.mark.parametrize(("returned", "status"), [(None, 0), (0, 0), (1, 1), (common.FOUND, 1)])
def test_the_exit_status_is_what_a_verb_returns(monkeypatch, returned, status):
    assert invoke(make_program(monkeypatch, lambda: returned), "act").exit_code == status


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (UsageError("no such thing"), "prog: no such thing\n"),
        (UsageError("two\nlines\tare  one"), "prog: two lines are one\n"),
        (AbsentError(0x1000, 8), "prog: physical 0x1000: absent from the image (8 bytes were asked for)\n"),
        (click.BadParameter("bad"), "prog: Invalid value: bad (see 'prog act --help')\n"),
        (click.FileError("x", "no"), "prog: Could not open file 'x': no\n"),
        (OSError(errno.ENOSPC, "No space left on device"), "prog: output: No space left on device\n"),
        (PermissionError(errno.EACCES, "Permission denied", "some.file"), "prog: some.file: Permission denied\n"),
    ],
)
def test_errors_are_one_line_and_status_2(monkeypatch, error, message):
    def act():
        raise error

    result = invoke(make_program(monkeypatch, act), "act")
    assert (result.exit_code, result.stderr, result.stdout) == (2, message, "")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ([], r"prog: Missing command \(see 'prog --help'\)\n"),
        (["nothing"], r"prog: No such command 'nothing' \(see 'prog --help'\)\n"),
        (["act", "more"], r"prog: Got unexpected extra argument \(more\) \(see 'prog act --help'\)\n"),
        (["act", "--no"], r"prog: No such option.* .?--no.* \(see 'prog act --help'\)\n"),
    ],
)
def test_bad_command_lines(monkeypatch, args, message):
    result = invoke(make_program(monkeypatch, lambda: None), *args)
    assert (result.exit_code, result.stdout) == (2, "")
    assert re.fullmatch(message, result.stderr)


def test_a_bug_is_not_hidden(monkeypatch):
    def act():
        raise ZeroDivisionError

    assert isinstance(invoke(make_program(monkeypatch, act), "act").exception, ZeroDivisionError)


@pytest.mark.parametrize("error", [KeyboardInterrupt, click.Abort])
def test_an_interrupt(monkeypatch, error):
    def act():
        raise error

    assert invoke(make_program(monkeypatch, act), "act").exit_code == 130


def test_a_closed_pipe_is_neither_an_error_nor_a_finding(monkeypatch):
    def act():
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    result = invoke(make_program(monkeypatch, act), "act")
    assert (result.exit_code, result.stderr) == (141, "")


def test_without_standalone_mode_it_is_an_ordinary_function(monkeypatch):
    def act():
        raise UsageError("no")

    with pytest.raises(UsageError):
        make_program(monkeypatch, act).main(["act"], standalone_mode=False)
    assert make_program(monkeypatch, lambda: 1).main(["act"], standalone_mode=False) == 1


def test_help(monkeypatch):
    program = make_program(monkeypatch, lambda: None)
    for flag in ("-h", "--help"):
        assert "A program for a test." in invoke(program, flag).stdout
        assert "  Example:\n    prog act\n" in invoke(program, "act", flag).stdout


def test_options(monkeypatch):
    seen = []

    def act(options, as_json):
        seen.append((options, as_json))

    program = make_program(monkeypatch, common.dump_options(common.json_option(act)))
    invoke(program, "act")
    invoke(program, "act", "--json", "--layout", "l.json", "--symbols", "s.json")
    assert seen == [(common.DumpOptions(), False), (common.DumpOptions("l.json", "s.json"), True)]


def test_json_takes_the_numbers_of_numpy(capsys):
    common.echo_json({"a": np.int64(5), "b": np.array([1, 2]), "c": (1, None), "d": np.bool_(True)})
    assert json.loads(capsys.readouterr().out) == {"a": 5, "b": [1, 2], "c": [1, None], "d": True}
    with pytest.raises(TypeError, match="object has no JSON form"):
        common.echo_json(object())


def test_hexadecimal_numbers():
    assert common.hex64(0xFFFFEA0000140000) == "0xffffea0000140000"
    assert common.hex64(-1) == "0xffffffffffffffff"


def test_a_table_in_a_pipe(capsys):
    common.echo_table(("pfn", "rule"), [(5, "[red]x"), (12345, "y")], right=("pfn",))
    assert capsys.readouterr().out == "  pfn  rule\n    5  [red]x\n12345  y\n"
    common.echo_table(("a", "b"), [])
    assert capsys.readouterr().out == "a  b\n"


def test_a_table_on_a_terminal(capsys, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    common.echo_table(("pfn", "rule"), [(5, "[red]x")], right=("pfn",))
    out = capsys.readouterr().out
    assert "[red]x" in out
    assert "─" in out
