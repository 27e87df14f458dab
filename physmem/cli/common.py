# SPDX-License-Identifier: GPL-2.0-only
"""What every command line of this project has in common.

A program is a :class:`Program`: a click group whose verbs are imported when they are called, and
which ends with status 0 if all is well, 1 if a check found something, 2 with one line on standard
error if the input or the command line is bad.  A verb is a module with a click command named
``command``, which returns the exit status (None is 0)::

    @click.command(epilog=example("physmem info A.vmcore.xz"))
    @click.argument("image", type=click.Path())
    @dump_options
    @json_option
    def command(image: str, options: DumpOptions, as_json: bool) -> None:
        with options.open(image) as dump:
            ...

In JSON, counts and PFNs are numbers; addresses and flag words, which a double cannot hold, are
strings as in ``"0xffffea0000140000"``.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import importlib
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import click

from physmem.errors import ImageError, PhysmemError, UnsupportedError

if TYPE_CHECKING:
    from rich.console import Console

    from physmem.dump import Dump

__all__ = [
    "FOUND",
    "DumpOptions",
    "Program",
    "TableOptions",
    "console",
    "dump_options",
    "echo_json",
    "echo_table",
    "example",
    "hex64",
    "json_option",
    "progress_bar",
    "read_parquet",
    "require_parquet",
    "signed64",
    "table_options",
    "target_options",
    "warn",
    "write_parquet",
]

#: Exit status of a check that found something.
FOUND = 1
#: Exit status when the input or the command line is bad.
BAD = 2
#: Exit status when nobody reads the output any more, or at Ctrl-C: as a shell reports those signals.
PIPE_CLOSED = 128 + 13
INTERRUPTED = 128 + 2

F = TypeVar("F", bound=Callable[..., Any])


class Program(click.Group):
    """A command line with verbs.

    :param name: what messages begin with
    :param verbs: module of each verb, in the order that ``--help`` lists them
    :param about: the first lines of ``--help``
    """

    def __init__(self, name: str, verbs: Mapping[str, str], about: str) -> None:
        super().__init__(
            name, help=about, no_args_is_help=False, context_settings={"help_option_names": ["-h", "--help"]}
        )
        self.verbs = verbs
        click.version_option(package_name="physmem", message="%(prog)s %(version)s")(self)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.verbs)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.verbs:
            return None
        command: click.Command = importlib.import_module(self.verbs[cmd_name]).command
        command.name = cmd_name
        return command

    def invoke(self, ctx: click.Context) -> Any:
        try:
            status = super().invoke(ctx)
            sys.stdout.flush()
        except BrokenPipeError:
            # To be taken here: click itself would end with 1, which says that a check found something.
            _abandon_output()
            return PIPE_CLOSED
        return status

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        """Run, and leave the process (unless ``standalone_mode`` is off) with the verb's exit status."""
        # Nothing here is linear algebra: the threads that numpy's would start take longer than many a verb.
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
        if not standalone_mode:
            return super().main(args, self.name, complete_var, standalone_mode=False, **extra)
        # What is imported stays, and a verb makes few cycles: looking for them is a tenth of what small verbs take.
        gc.freeze()
        gc.set_threshold(50_000, 20)
        try:
            sys.exit(super().main(args, self.name, complete_var, standalone_mode=False, **extra))
        except click.UsageError as error:
            path = error.ctx.command_path if error.ctx else self.name
            self._fail(f"{error.format_message().rstrip('.')} (see '{path} --help')")
        except click.ClickException as error:
            self._fail(error.format_message())
        except (click.Abort, KeyboardInterrupt):
            sys.exit(INTERRUPTED)
        except PhysmemError as error:
            self._fail(str(error))
        except OSError as error:
            _abandon_output()
            self._fail(f"{error.filename or 'output'}: {error.strerror or error}")

    def _fail(self, message: str) -> NoReturn:
        click.echo(f"{self.name}: {' '.join(message.split())}", err=True)
        sys.exit(BAD)


def _abandon_output() -> None:
    """Let what is left in the buffer of standard output go nowhere, when it cannot go where it should."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def example(*lines: str) -> str:
    """The epilog of a command: what to type."""
    return "\b\n" + "\n".join(["Example:" if len(lines) == 1 else "Examples:", *(f"  {line}" for line in lines)])


@dataclass(frozen=True)
class DumpOptions:
    """How to open an image, as the common options of the command line say it.

    :ivar layout: a ``layout.json``, or None
    :ivar symbols: a ``symbols.json``, or None
    :ivar vmlinux: the kernel's ``vmlinux``, or None
    """

    layout: str | None = None
    symbols: str | None = None
    vmlinux: str | None = None

    def open(self, image: str) -> Dump:
        """Open a memory image; raises what :func:`physmem.dump.open_dump` does."""
        from physmem.dump import open_dump  # brings numpy along, which --help does not need

        return open_dump(image, layout=self.layout, symbols=self.symbols, vmlinux=self.vmlinux)


def dump_options(command: F) -> F:
    """Give a command ``--layout``, ``--symbols`` and ``--vmlinux``, which reach it as ``options``: DumpOptions."""

    @click.option("--layout", metavar="FILE", type=click.Path(), help="Struct layouts of the kernel (layout.json).")
    @click.option("--symbols", metavar="FILE", type=click.Path(), help="Addresses of its symbols (symbols.json).")
    @click.option(
        "--vmlinux", metavar="FILE", type=click.Path(), help="The kernel with debug information (extra: dwarf)."
    )
    @functools.wraps(command)
    def wrapper(*args: Any, layout: str | None, symbols: str | None, vmlinux: str | None, **kwargs: Any) -> Any:
        return command(*args, options=DumpOptions(layout, symbols, vmlinux), **kwargs)

    return wrapper  # type: ignore[return-value]


#: As in ``physmem.image.save``, which --help does not need.
IMAGE_FORMATS = ("elf", "kdump", "lime", "raw")
PAGE_COMPRESSIONS = ("zlib", "lzo", "snappy", "zstd", "none")


def target_options(command: F) -> F:
    """Give a command ``--format`` and ``--compression``, of the image that it writes; None if not given."""
    command = click.option(
        "--compression", type=click.Choice(PAGE_COMPRESSIONS), help="Of the pages of a kdump file.  [default: zlib]"
    )(command)
    return click.option(
        "--format", "format_", type=click.Choice(IMAGE_FORMATS), help="Of the image.  [default: by its name, or elf]"
    )(command)


@contextlib.contextmanager
def progress_bar(label: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar on standard error, if that is a terminal; gives what is to be told of each step."""
    if not sys.stderr.isatty():
        yield lambda done: None
        return
    with click.progressbar(length=total, label=label, file=sys.stderr, update_min_steps=max(total // 500, 1)) as bar:
        yield bar.update


def json_option(command: F) -> F:
    """Give a command ``--json``, which reaches it as ``as_json``: bool."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(command)


@dataclass(frozen=True)
class TableOptions:
    """In which form a verb gives its table, as the common options of the command line say it.

    :ivar parquet: the Parquet file to write, or None
    :ivar as_json: print JSON
    """

    parquet: str | None = None
    as_json: bool = False

    def give(
        self,
        columns: Sequence[str],
        rows: Callable[[], Iterable[Sequence[object]]],
        text: Callable[[], str | None],
        as_json: Callable[[], object] | None = None,
    ) -> None:
        """Write or print the table, in the one form that is asked for.

        :param columns: of the Parquet file, and of the objects in JSON if ``as_json`` is not given
        :param text: gives what to print otherwise; or prints it itself, and gives None
        :raises PhysmemError: what :func:`write_parquet` does
        """
        if self.parquet is not None:
            write_parquet(self.parquet, columns, rows())
        elif self.as_json:
            echo_json(as_json() if as_json else [dict(zip(columns, row, strict=True)) for row in rows()])
        else:
            click.echo(text() or "", nl=False)


def table_options(command: F) -> F:
    """Give a command ``--json`` and ``--parquet``, which reach it as ``table``: TableOptions."""
    text = "Write the table to FILE as Parquet, instead of printing it (extra: parquet)."

    @click.option("--parquet", metavar="FILE", type=click.Path(), help=text)
    @json_option
    @functools.wraps(command)
    def wrapper(*args: Any, parquet: str | None, as_json: bool, **kwargs: Any) -> Any:
        return command(*args, table=TableOptions(parquet, as_json), **kwargs)

    return wrapper  # type: ignore[return-value]


def write_parquet(
    path: str,
    columns: Sequence[str],
    rows: Iterable[Sequence[object]],
    types: Mapping[str, str] | None = None,
    option: str = "--parquet",
) -> None:
    """Write a table as a Parquet file in the place of what is there.

    None is null.

    :param types: of each column, as Arrow names it: ``int64``, ``list<double>``; None: as its values are, integers
        having 64 bits
    :param option: what asked for it
    :raises UnsupportedError: pyarrow is not installed
    :raises ImageError: the file cannot be written
    """
    from physmem.image.output import replacing

    pyarrow, parquet = require_parquet(option)
    cells = list(zip(*rows, strict=True)) or [() for _ in columns]
    arrays = {}
    for name, values in zip(columns, cells, strict=True):
        inner = (types or {}).get(name, "")
        listed = inner.startswith("list<")
        kind = pyarrow.type_for_alias(inner.removeprefix("list<").removesuffix(">")) if inner else None
        arrays[name] = pyarrow.array(list(values), pyarrow.list_(kind) if listed else kind)
    out = pyarrow.BufferOutputStream()
    parquet.write_table(pyarrow.table(arrays), out)
    with replacing(path) as file:
        file.write(out.getvalue().to_pybytes())


def read_parquet(path: str, columns: Sequence[str], option: str = "--parquet") -> list[dict[str, Any]]:
    """The rows of a Parquet file that has these columns; raises as :func:`write_parquet` does."""
    pyarrow, parquet = require_parquet(option)
    try:
        with open(path, "rb") as file:
            table = parquet.read_table(file)
    except OSError as error:
        raise ImageError(path, f"cannot be read: {error.strerror or error}") from None
    except (pyarrow.ArrowException, ValueError) as error:
        raise ImageError(path, f"not a Parquet file: {error}") from None
    if table.column_names != list(columns):
        raise ImageError(path, "not a table with the columns that are written here")
    rows: list[dict[str, Any]] = table.to_pylist()
    return rows


def require_parquet(option: str) -> tuple[Any, Any]:
    """The modules pyarrow and pyarrow.parquet, which ``option`` of the command line needs; or UnsupportedError."""
    try:
        return importlib.import_module("pyarrow"), importlib.import_module("pyarrow.parquet")
    except ImportError:
        raise UnsupportedError(f"{option} needs pyarrow: pip install 'physmem[parquet]'") from None


def echo_json(value: Any) -> None:
    """Print a value as JSON; numpy's numbers are numbers."""
    click.echo(json.dumps(value, indent=1, default=_plain))


def _plain(value: Any) -> Any:
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} has no JSON form")


def warn(message: str) -> None:
    """Say something on standard error, in a line that begins with the program's name."""
    program = click.get_current_context().find_root().command.name
    click.echo(f"{program}: {' '.join(message.split())}", err=True)


def hex64(value: int) -> str:
    """An address or a word of bits, as JSON has it."""
    return f"{value & (1 << 64) - 1:#x}"


def signed64(value: int) -> int:
    """A count modulo 2^64 as an integer of 64 bits, as Parquet has it."""
    return (value & (1 << 64) - 1 ^ 1 << 63) - (1 << 63)


def console() -> Console:
    """A rich console on standard output, which takes text literally: what an image says is never markup."""
    from rich.console import Console

    return Console(highlight=False, markup=False, emoji=False)


def echo_table(columns: Sequence[str], rows: Iterable[Sequence[object]], right: Iterable[str] = ()) -> None:
    """Print a table: ruled on a terminal, aligned plain text in a pipe.

    :param right: the columns to align to the right
    """
    text = [[str(cell) for cell in row] for row in rows]
    numeric = [column in set(right) for column in columns]
    if sys.stdout.isatty():
        from rich import box
        from rich.table import Table

        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        for column, is_right in zip(columns, numeric, strict=True):
            table.add_column(column, justify="right" if is_right else "left", overflow="fold")
        for row in text:
            table.add_row(*row)
        console().print(table)
        return
    widths = [max(len(row[i]) for row in [list(columns), *text]) for i in range(len(columns))]
    for row in [list(columns), *text]:
        cells = zip(row, widths, numeric, strict=True)
        click.echo("  ".join(c.rjust(w) if is_right else c.ljust(w) for c, w, is_right in cells).rstrip())
