# SPDX-License-Identifier: GPL-2.0-only
"""Build the compiled engine, if this machine can; everything else is in pyproject.toml.

Each module whose second line is ``# room: compiled`` becomes an extension.  A build without a
compiler, or one that fails, installs the interpreted engine only.  ``PHYSMEM_ENGINE=compiled``
in the environment makes a failure an error (CI); ``PHYSMEM_ENGINE=interpreted`` skips the build.
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import shutil
import sys
import sysconfig
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


def fingerprint() -> dict[str, str]:
    """A hash of each source the extensions are made of, by which a stale build is noticed at import."""
    sources = rooms() + [
        path.relative_to(ROOT).as_posix()
        for package in ("physmem", "kernelmm")
        for path in (ROOT / package).rglob("*.pxd")
    ]
    return {name: hashlib.sha256((ROOT / name).read_bytes()).hexdigest() for name in sorted(sources)}


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
                (target / "physmem" / "_built.json").write_text(json.dumps(fingerprint(), indent=0))

    def copy_extensions_to_source(self) -> None:
        self._attempt("copy_extensions_to_source")


def extensions() -> list[Extension]:
    if ENGINE == "interpreted":
        return []
    try:
        compiler = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")[0]
        if shutil.which(compiler) is None:
            raise FileNotFoundError(f"no C compiler: {compiler} is not on PATH")
        from Cython.Build import cythonize

        return cythonize(  # type: ignore[no-any-return]
            [
                Extension(
                    path[:-3].replace("/", "."),
                    [path],
                    # As the kernel is built: one memory is seen as words of several sizes.  And a function that
                    # only the same room calls has the same reason to look too large as an accessor.
                    extra_compile_args=[
                        "-O3",
                        "-g0",
                        "-fno-strict-aliasing",
                        *("--param", "max-inline-insns-auto=100"),
                        "-Wno-unreachable-code",
                    ],
                    # The accessors carry error paths that make them look too large to a compiler.
                    define_macros=[("CYTHON_INLINE", "inline __attribute__((always_inline))")],
                )
                for path in rooms()
            ],
            compiler_directives=DIRECTIVES,
            build_dir="build/cython",
            # Cython does not follow "from package cimport room", so it would miss a changed inline room.
            force=True,
            nthreads=os.cpu_count() or 1,
            quiet=True,
        )
    except Exception as error:
        if ENGINE == "compiled":
            raise
        print(f"physmem: the compiled engine was not built ({error}); the interpreted one works", file=sys.stderr)
        return []


setup(ext_modules=extensions(), cmdclass={"build_ext": OptionalBuildExt})
