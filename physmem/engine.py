# SPDX-License-Identifier: GPL-2.0-only
"""Which engine runs: the hot rooms compiled, or the very same files interpreted.

A hot room ``x.py`` that was compiled has an extension module beside it, which Python would
prefer.  The finder installed here decides when the first hot room is imported, once for the
process: as :func:`select` said, else as ``PHYSMEM_ENGINE=interpreted`` or ``compiled`` in the
environment says, else compiled if that was built from the sources that are there.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import os
import sys
import zlib
from collections.abc import Sequence
from types import ModuleType

from physmem.errors import UsageError

__all__ = ["ENGINES", "available", "current", "install", "select", "why_interpreted"]

ENGINES = ("compiled", "interpreted")

_ROOT = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
_chosen: str | None = None


class _Finder:
    """A meta path finder for the compiled rooms alone; for the compiled engine it steps aside."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if _chosen == "compiled" or name.partition(".")[0] not in ("physmem", "kernelmm"):
            return None
        source = os.path.join(_ROOT, *name.split(".")) + ".py"
        # Asking for the engine settles the choice, which only a hot room is a reason for.
        if not _is_built(source) or current() == "compiled":
            return None
        loader = importlib.machinery.SourceFileLoader(name, source)
        return importlib.util.spec_from_file_location(name, source, loader=loader)


def install() -> None:
    """Put the finder in front; ``physmem`` does so when it is imported."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


def current() -> str:
    """The engine of this process; asking settles the choice."""
    global _chosen
    if _chosen is None:
        select(os.environ.get("PHYSMEM_ENGINE") or available()[0])
        assert _chosen is not None
    return _chosen


def select(engine: str) -> None:
    """Choose the engine for this process.

    :raises UsageError: there is no such engine, it cannot run here, or another one is already running
    """
    global _chosen
    if engine not in ENGINES:
        raise UsageError(f"engine {engine!r}: there are {' and '.join(ENGINES)}")
    if _chosen not in (None, engine):
        raise UsageError(f"engine {engine}: the {_chosen} one is already running in this process")
    if engine not in available():
        raise UsageError(f"engine {engine}: {why_interpreted()}")
    _chosen = engine


def available() -> tuple[str, ...]:
    """The engines that can run here, the better one first."""
    return ENGINES if why_interpreted() is None else ENGINES[1:]


def why_interpreted() -> str | None:
    """Why the compiled engine cannot run here, in words; None if it can."""
    spec = importlib.machinery.PathFinder.find_spec("physmem.space", [os.path.join(_ROOT, "physmem")])
    if spec is None or not isinstance(spec.loader, importlib.machinery.ExtensionFileLoader):
        return "the compiled engine was not built here (that needs a C compiler)"
    changed = _changed()
    return f"the compiled engine is stale: {changed} has changed since it was built" if changed else None


def _changed() -> str | None:
    """A source that is not what the extensions were built from (``setup.py`` leaves a record of them)."""
    record = "_built.txt"
    try:
        first, *lines = _contents(os.path.join("physmem", record)).decode().splitlines()
        for line in lines:
            said, name = line.split(" ", 1)
            # What nobody has written to since, nor put in its place, need not be read.
            found = os.stat(os.path.join(_ROOT, name))
            if found.st_ctime_ns < int(first) and said.endswith(f"-{found.st_size}"):
                continue
            source = _contents(name)
            if f"{zlib.crc32(source):08x}-{len(source)}" != said:
                return name
    except (OSError, ValueError):
        return record
    return None if lines else record


def _contents(name: str) -> bytes:
    with open(os.path.join(_ROOT, name), "rb") as file:
        return file.read()


def _is_built(source: str) -> bool:
    """Whether there is an extension module that Python would prefer to the source."""
    return any(os.path.exists(source[:-3] + suffix) for suffix in importlib.machinery.EXTENSION_SUFFIXES)
