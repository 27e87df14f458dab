# SPDX-License-Identifier: GPL-2.0-only
"""The machine that a benchmark ran on, in words; nothing that tells whose it is."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from pathlib import Path

from physmem import engine

__all__ = ["described"]


def described() -> str:
    """Processor, cores, load, versions."""
    model = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    cores = len(os.sched_getaffinity(0))
    compiler = os.environ.get("CC", "cc")
    try:
        told = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=False).stdout
        first = told.partition("\n")[0]
    except OSError:
        first = "no C compiler"
    return (
        f"{model[1] if model else platform.machine()}, {cores} cores (load {os.getloadavg()[0]:.1f} when it began), "
        f"Python {platform.python_version()}, {first}, engine: {engine.current()}"
    )
