# SPDX-License-Identifier: GPL-2.0-only
"""One parser under atheris, in a process of its own: ``python -m tools.fuzz.worker NAME SEEDS [libFuzzer options]``.

Memory is limited to a fixed amount above what the process has: inputs are small, so whatever needs more takes it from a
number in the input.  What the process has is looked at again now and then, because the fuzzer itself grows.
"""

from __future__ import annotations

import itertools
import mmap
import resource
import sys
from pathlib import Path

import atheris  # type: ignore[import-untyped,import-not-found,unused-ignore]

with atheris.instrument_imports(include=["physmem", "kernelmm.study.script"]):
    from tools.fuzz.targets import TARGETS, attempt

#: What an input may take.
_ROOM = 256 << 20
#: Inputs between two looks at what the process has.
_LOOK = 64


def _limit_memory() -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + _ROOM, resource.RLIM_INFINITY))


def main() -> None:
    target = TARGETS[sys.argv[1]]
    folder = Path(sys.argv[2])
    folder.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(target.seeds()):
        (folder / f"seed{number}").write_bytes(seed)
    run = target.make()
    for seed in target.seeds():
        attempt(run, seed[: target.room])
    options = [f"-max_len={target.room}", f"-artifact_prefix={folder.parent}/{target.name}-", *sys.argv[3:]]
    # libFuzzer leaves the process without another word: so the count is kept in a file.
    with (folder.parent / f"{target.name}.count").open("w+b") as file:
        file.write(bytes(8))
        file.flush()
        count = memoryview(mmap.mmap(file.fileno(), 8)).cast("Q")

    inputs = itertools.count()

    def once(data: bytes) -> None:
        if next(inputs) % _LOOK == 0:
            _limit_memory()
        count[0] += max(len(data) // target.edit, 1) if target.edit else 1
        attempt(run, data)

    if target.edit:
        options.append("-len_control=0")  # long lists from the start
    atheris.Setup([sys.argv[0], str(folder), *options], once)
    atheris.Fuzz()


main()
