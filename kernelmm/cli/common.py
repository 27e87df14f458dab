# SPDX-License-Identifier: GPL-2.0-only
"""What the verbs of ``kernelmm`` have in common: which engine runs, and the machine."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

import click

from physmem import engine
from physmem.cli.common import DumpOptions, progress_bar, warn

if TYPE_CHECKING:
    from kernelmm.machine import Machine

__all__ = ["attach", "engine_option", "save", "text_output"]

F = TypeVar("F", bound=Callable[..., Any])

#: Bytes of text that are collected before they are written.
_CHUNK = 1 << 16


def engine_option(command: F) -> F:
    """Give a command ``--engine``, which takes effect before the command begins."""

    @click.option("--engine", "chosen", type=click.Choice(engine.ENGINES), help="Default: compiled, if it was built.")
    @functools.wraps(command)
    def wrapper(*args: Any, chosen: str | None, **kwargs: Any) -> Any:
        if chosen is not None:
            engine.select(chosen)
        elif not os.environ.get("PHYSMEM_ENGINE") and (reason := engine.why_interpreted()):
            # Who asked for an engine need not be told.
            click.echo(f"kernelmm: the interpreted engine runs: {reason}", err=True)
        return command(*args, **kwargs)

    return wrapper  # type: ignore[return-value]


def attach(image: str, options: DumpOptions) -> Machine:
    """A machine over a memory image; the engine must have been chosen."""
    from kernelmm.machine import Machine  # imports hot rooms

    return Machine.attach(image, options.layout, options.symbols, options.vmlinux)


def save(machine: Machine, path: str, format_: str | None, compression: str | None) -> None:
    """Write a machine's memory, as the options say; what the format cannot hold is a warning."""
    with progress_bar("saving", machine.ram.ranges.total()) as progress:
        lost = machine.save(path, format_, compression, progress)
    for line in lost:
        warn(f"{path}: {line}")


@contextlib.contextmanager
def text_output(path: str | None) -> Iterator[Callable[[str], None]]:
    """Write text line by line: gives a function that takes a line.

    :param path: a file, which appears whole when the block ends well; ``-`` for standard output; None for nowhere
    :raises ImageError: the file cannot be written
    """
    if path is None or path == "-":
        yield click.echo if path else lambda line: None
        return
    from physmem.image.output import replacing

    with replacing(path) as out:
        lines: list[str] = []

        def flush() -> None:
            out.write("".join(lines).encode())
            lines.clear()

        def write(line: str) -> None:
            lines.append(line + "\n")
            if len(lines) >= _CHUNK // 64:
                flush()

        yield write
        flush()
