# SPDX-License-Identifier: GPL-2.0-only
"""Build the compiled engine, if this machine can; everything else is in pyproject.toml.

Each module whose second line is ``# room: compiled`` becomes an extension.  A build without a
compiler, or one that fails, installs the interpreted engine only.  ``PHYSMEM_ENGINE=compiled``
in the environment makes a failure an error (CI); ``PHYSMEM_ENGINE=interpreted`` skips the build.
``PHYSMEM_CFLAGS`` has further options for the compiler.
"""

from __future__ import annotations

import importlib.util
import os
import shlex
import shutil
import sys
import sysconfig
import time
import zlib
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent
ENGINE = os.environ.get("PHYSMEM_ENGINE", "")
DIRECTIVES = {
    "language_level": 3,
    "annotation_typing": False,
    "boundscheck": True,
    "wraparound": False,
    "initializedcheck": False,
    "cdivision": True,
    "embedsignature": True,
}


def rooms() -> list[str]:
    """Paths of the modules to compile, relative to the project."""
    found = []
    for package in ("physmem", "kernelmm"):
        for path in sorted((ROOT / package).rglob("*.py")):
            if path.read_text().split("\n", 2)[1:2] == ["# room: compiled"]:
                found.append(path.relative_to(ROOT).as_posix())
    return found


def record() -> str:
    """The sources that the extensions are made of, by which a stale build is noticed at import."""
    sources = rooms() + [
        path.relative_to(ROOT).as_posix()
        for package in ("physmem", "kernelmm")
        for path in (ROOT / package).rglob("*.pxd")
    ]
    # Of when they were read, a little before: the clock of file systems lags.
    lines = [f"{time.time_ns() - 1_000_000_000}\n"]
    contents = {name: (ROOT / name).read_bytes() for name in sorted(sources)}
    # As physmem.engine has it.
    lines += (f"{zlib.crc32(data):08x}-{len(data)} {name}\n" for name, data in contents.items())
    return "".join(lines)


class OptionalBuildExt(build_ext):
    """``build_ext`` that gives up quietly, in one place, unless it must not."""

    def _attempt(self, step: str, *arguments: object) -> bool:
        try:
            getattr(super(), step)(*arguments)
            return True
        except Exception as error:
            if ENGINE == "compiled":
                raise
            print(f"physmem: the compiled engine was not built ({error}); the interpreted one works", file=sys.stderr)
            return False

    def run(self) -> None:
        self.parallel = self.parallel or os.cpu_count()
        if self._attempt("run"):
            target = ROOT if self.inplace else Path(self.build_lib)
            if (target / "physmem").is_dir() and self.extensions:
                (target / "physmem" / "_built.txt").write_text(record())

    def build_extensions(self) -> None:
        # Here and not where the extensions are listed: a build by pip runs this file several times.
        translate(self.extensions)
        super().build_extensions()

    def copy_extensions_to_source(self) -> None:
        self._attempt("copy_extensions_to_source")


def extensions() -> list[Extension]:
    """What to build, if there is all that it takes."""
    if ENGINE == "interpreted":
        return []
    compiler = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")[0]
    for missing, what in (
        (shutil.which(compiler) is None, f"no C compiler: {compiler} is not on PATH"),
        (importlib.util.find_spec("Cython") is None, "no Cython"),
    ):
        if missing and ENGINE == "compiled":
            raise SystemExit(f"physmem: {what}")
        if missing:
            print(f"physmem: the compiled engine was not built ({what}); the interpreted one works", file=sys.stderr)
            return []
    return [
        Extension(
            path[:-3].replace("/", "."),
            [path],
            # As the kernel is built: one memory is seen as words of several sizes.  And a function that
            # only the same room calls has the same reason to look too large as an accessor.
            extra_compile_args=[
                # Fields and complaints, none of which takes long except to compile.
                "-O1" if path == "kernelmm/core/mm.py" else "-O3",
                "-g0",
                "-fno-strict-aliasing",
                *("--param", "max-inline-insns-auto=100"),
                "-Wno-unreachable-code",
                *shlex.split(os.environ.get("PHYSMEM_CFLAGS", "")),
            ],
            # The accessors carry error paths that make them look too large to a compiler.
            define_macros=[("CYTHON_INLINE", "inline __attribute__((always_inline))")],
        )
        for path in rooms()
    ]


def translate(found: list[Extension]) -> None:
    """Python to C, by Cython: the extensions get C sources."""
    from Cython.Build import cythonize

    translated = cythonize(
        found,
        compiler_directives=DIRECTIVES,
        build_dir="build/cython",
        # Cython does not follow "from package cimport room", so it would miss a changed inline room.
        force=True,
        nthreads=os.cpu_count() or 1,
        quiet=True,
    )
    sources = {extension.name: extension.sources for extension in translated}
    for extension in found:
        extension.sources = sources[extension.name]


setup(ext_modules=extensions(), cmdclass={"build_ext": OptionalBuildExt})
