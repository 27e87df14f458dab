# SPDX-License-Identifier: GPL-2.0-only
"""``python -m tools.fuzz``: every parser under atheris, one after the other, and a table of how it went.

A finding ends the parser's run: its input is kept in the folder of ``--work``, and ``--try FILE`` runs it again.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from physmem.errors import PhysmemError, UsageError
from tools.fuzz.targets import TARGETS, Target, attempt

#: How many changes a fuzzer's list of them has on average, at least.
_CHANGES = 8
_STATUS = re.compile(r"^#(\d+)\s+\w+\s+(?:cov: (\d+) )?", re.MULTILINE)
_DONE = re.compile(r"^Done (\d+) runs in (\d+) second", re.MULTILINE)


class Outcome(NamedTuple):
    """How a parser did: what ran, how much code it saw, and what went wrong, if anything did."""

    mutations: int
    runs: int
    seconds: float
    edges: int
    failure: str


def fuzz(target: Target, runs: int, work: Path, seed: int, limit: int) -> Outcome:
    """Run one parser, in one process after the other: the fuzzer keeps what it has seen, and would grow without end.

    What was worth keeping is in files, from which the next process goes on.
    """
    (work / f"{target.name}.log").unlink(missing_ok=True)
    whole = Outcome(0, 0, 0.0, 0, "")
    while whole.runs < runs and not whole.failure:
        part = _fuzz(target, min(target.inputs, runs - whole.runs), work, seed, limit)
        whole = Outcome(
            whole.mutations + part.mutations,
            whole.runs + part.runs,
            whole.seconds + part.seconds,
            max(whole.edges, part.edges),
            part.failure,
        )
        seed += 1
    return whole


def _fuzz(target: Target, runs: int, work: Path, seed: int, limit: int) -> Outcome:
    """Run one parser in a process of its own."""
    command = [sys.executable, "-m", "tools.fuzz.worker", target.name, str(work / target.name)]
    command += [f"-runs={runs}", f"-seed={seed}", f"-timeout={limit}", "-rss_limit_mb=8000", "-print_final_stats=0"]
    (work / f"{target.name}.count").unlink(missing_ok=True)
    start, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    log = work / f"{target.name}.log"
    said = log.stat().st_size if log.exists() else 0
    memory = "/dev/shm" if os.path.isdir("/dev/shm") else None
    with log.open("ab") as output, tempfile.TemporaryDirectory(dir=memory) as scratch:
        environment = {**os.environ, "TMPDIR": scratch}
        status = subprocess.run(command, stdout=output, stderr=output, check=False, env=environment).returncode
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    text = log.read_bytes()[said:].decode(errors="replace")
    lines = _STATUS.findall(text)
    done = max((int(number) for number, _ in lines), default=0)
    edges = max((int(edges or 0) for _, edges in lines), default=0)
    count = work / f"{target.name}.count"
    mutations = int.from_bytes(count.read_bytes(), "little") if count.exists() else 0
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    if status == 0 and done and _DONE.search(text):
        return Outcome(mutations, done, seconds, edges, "")
    reason = next((line for line in reversed(text.splitlines()) if "Error" in line or "ERROR" in line), "it ended")
    return Outcome(mutations, done, max(seconds, time.monotonic() - start), edges, f"{reason.strip()} (see {log})")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.fuzz", description=__doc__)
    parser.add_argument("--parser", action="append", choices=tuple(TARGETS), help="only this one (may be repeated)")
    parser.add_argument("--runs", type=int, default=100_000, help="mutations for each parser (default 100000)")
    parser.add_argument("--seed", type=int, default=1, help="of the fuzzer (default 1)")
    parser.add_argument("--limit", type=int, default=10, help="seconds that an input may take (default 10)")
    parser.add_argument("--work", type=Path, default=Path("build/fuzz"), help="for inputs and logs (build/fuzz)")
    parser.add_argument("--try", dest="again", type=Path, help="run the input in this file, for one --parser")
    arguments = parser.parse_args()
    names = arguments.parser or list(TARGETS)
    if arguments.again:
        attempt(TARGETS[names[0]].make(), arguments.again.read_bytes())
        print(f"{names[0]}: {arguments.again}: read, or refused as it should be")
        return 0
    if importlib.util.find_spec("atheris") is None:
        raise UsageError("fuzzing needs atheris: pip install 'physmem[fuzz]'")
    arguments.work.mkdir(parents=True, exist_ok=True)
    print(f"| {'parser':12} | {'mutations':>9} | {'inputs':>7} | {'CPU seconds':>11} | {'edges':>5} | result |")
    print("| --- | ---: | ---: | ---: | ---: | --- |")
    status = 0
    for name in names:
        target = TARGETS[name]
        # Where an input is a list of changes to a machine, each of them is a mutation.
        each = _CHANGES if target.edit else 1
        outcome = fuzz(target, -(-arguments.runs // each), arguments.work, arguments.seed, arguments.limit)
        shown = f"{outcome.mutations:9} | {outcome.runs:7} | {outcome.seconds:11.0f} | {outcome.edges:5}"
        print(f"| {name:12} | {shown} | {outcome.failure or 'nothing found'} |", flush=True)
        status = 1 if outcome.failure else status
    return status


if __name__ == "__main__":
    try:
        sys.exit(main())
    except PhysmemError as error:
        print(f"fuzz: {error}", file=sys.stderr)
        sys.exit(2)
