# SPDX-License-Identifier: GPL-2.0-only
"""Explain on a copy of a machine, whichever engine runs it.

Only the interpreted engine can be watched, and a process has one engine.  Where it is the
compiled one, the copy is explained in a process of its own, and the explanation comes back as data.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from kernelmm.study.explain import explain
from kernelmm.study.explain_calls import parse_requests
from kernelmm.study.explain_html import page
from kernelmm.study.explain_model import Explanation
from physmem import engine
from physmem.errors import PhysmemError, UsageError
from physmem.structs import known

if TYPE_CHECKING:
    from kernelmm.machine import Machine

__all__ = ["explain_copy"]

#: A machine with more memory than this is not copied.
_MOST = 4 << 30
_PROGRAM = "from kernelmm.cli import main; main()"


def explain_copy(machine: Machine, operations: Sequence[str], html: str | os.PathLike[str] | None) -> Explanation:
    """What the operations would do to a machine, which itself stays as it is.

    :param html: a file to write the page to, or None
    :raises UsageError: an operation is malformed, or the machine is too large to be copied
    :raises PhysmemError: an argument is not one of this machine; or the copy cannot be made
    """
    parse_requests(operations)
    if machine.ram.ranges.total() > _MOST:
        raise UsageError("the machine is too large to be copied: save it, and use 'kernelmm explain'")
    with tempfile.TemporaryDirectory() as folder:
        image = Path(folder, "machine.vmcore")
        machine.save(image)
        if engine.current() == "interpreted":
            found = _here(machine, image, operations, html)
        else:
            found = _elsewhere(machine, image, operations, html)
    found.image = machine.dump.image.path
    return found


def _files(machine: Machine, folder: Path) -> tuple[Path | None, Path | None]:
    """Layout and symbols of a kernel that its image does not tell."""
    if known.recognise(machine.dump.info) is not None:
        return None, None
    layout, symbols = folder / "layout.json", folder / "symbols.json"
    layout.write_text(machine.dump.layout.to_json())
    symbols.write_text(
        json.dumps({"addresses": {name: hex(machine.dump.symbols[name]) for name in machine.dump.symbols}})
    )
    return layout, symbols


def _here(machine: Machine, image: Path, operations: Sequence[str], html: str | os.PathLike[str] | None) -> Explanation:
    layout, symbols = _files(machine, image.parent)
    with type(machine).attach(image, layout, symbols) as copy, copy.on_cpu(machine.cpu):
        copy.debug_vm = machine.debug_vm
        found = explain(copy, operations)
        found.image = machine.dump.image.path
        if html is not None:
            Path(html).write_text(page(found, copy), encoding="utf-8")
    return found


def _elsewhere(
    machine: Machine, image: Path, operations: Sequence[str], html: str | os.PathLike[str] | None
) -> Explanation:
    options = ["--json", "--cpu", str(machine.cpu), *(["--debug-vm"] if machine.debug_vm else [])]
    for name, path in zip(("--layout", "--symbols"), _files(machine, image.parent), strict=True):
        options += [] if path is None else [name, str(path)]
    options += [] if html is None else ["--html", os.fspath(html)]
    environment = {name: value for name, value in os.environ.items() if name != "PHYSMEM_ENGINE"}
    environment["PYTHONPATH"] = os.pathsep.join(
        filter(None, [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH")])
    )
    command = [sys.executable, "-c", _PROGRAM, "explain", *options, "--", str(image), *operations]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 1) or not done.stdout:
        reason = done.stderr.strip().rpartition("\n")[2].removeprefix("kernelmm: ")
        raise PhysmemError(reason or f"the process that explains ended with status {done.returncode}")
    return Explanation.from_json(json.loads(done.stdout))
