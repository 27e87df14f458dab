# SPDX-License-Identifier: GPL-2.0-only
"""Kernels whose layout and symbols travel with the package.

An image's VMCOREINFO note says sizes, offsets and the addresses of a few
variables: enough to recognise the kernel that was running, far from enough to
walk its memory.  For the kernels known here the rest is at hand: each ``.json``
beside this module has a kernel's fingerprint, the configuration its layout is
compiled from, and its symbol table (``tools/known_kernel.py`` writes them).
Builds whose notes are the same are one kernel here, with the symbols that they
have at the same addresses.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType

from physmem.structs.layout import Layout

__all__ = ["KnownKernel", "fingerprint", "kernels", "recognise"]

_CONSTANT = re.compile(r"OSRELEASE|(SYMBOL|SIZE|OFFSET|LENGTH)\(.*\)|NUMBER\((?!phys_base\)).*\)")
"""The keys whose value the build decides: not when it crashed, nor where it was loaded."""


@dataclass(frozen=True)
class KnownKernel:
    """A kernel that was met before.

    :ivar name: what to call it
    :ivar config: which configuration of Linux 4.0 it has (a key of ``linux_4_0.CONFIGS``)
    :ivar fingerprint: of its VMCOREINFO note
    :ivar symbols: kernel virtual addresses by name; per-cpu variables have their offset in the per-cpu area
    """

    name: str
    config: str
    fingerprint: str
    symbols: Mapping[str, int]

    @property
    def layout(self) -> Layout:
        """Its structs, enums and constants; compiled when it is first asked for."""
        from physmem.structs import linux_4_0  # brings construct along, which takes longer to import than physmem

        return linux_4_0.layout(linux_4_0.CONFIGS[self.config])


def fingerprint(vmcoreinfo: Mapping[str, str]) -> str:
    """What identifies the build that wrote a note: a SHA-256 over its constant lines, in hexadecimal.

    The addresses of symbols are among them: a kernel that was moved at boot (KASLR) is not recognised.
    """
    import hashlib  # for images of Linux 4.0 alone

    lines = sorted(f"{key}={value}\n" for key, value in vmcoreinfo.items() if _CONSTANT.fullmatch(key))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


@cache
def kernels() -> tuple[KnownKernel, ...]:
    """All known kernels, by name."""
    here = os.path.dirname(__file__)
    return tuple(_load(os.path.join(here, name)) for name in sorted(os.listdir(here)) if name.endswith(".json"))


def _load(path: str) -> KnownKernel:
    import json

    with open(path, "rb") as file:
        data = json.load(file)
    symbols = MappingProxyType({name: int(address, 16) for name, address in data["symbols"].items()})
    return KnownKernel(data["name"], data["config"], data["fingerprint"], symbols)


def recognise(vmcoreinfo: Mapping[str, str]) -> KnownKernel | None:
    """The kernel that wrote this note, if it is a known one.

    :param vmcoreinfo: the note's lines, as in ``{"SIZE(page)": "64"}``
    """
    if not vmcoreinfo.get("OSRELEASE", "").startswith("4.0."):
        return None
    wanted = fingerprint(vmcoreinfo)
    return next((kernel for kernel in kernels() if kernel.fingerprint == wanted), None)
