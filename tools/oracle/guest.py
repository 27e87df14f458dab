# SPDX-License-Identifier: GPL-2.0-only
"""One run of a page script in a guest: its memory at moments A and B, and what every operation returned."""

from __future__ import annotations

import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from physmem.errors import UsageError
from tools.guest.machine import QEMU, Qmp, running

__all__ = ["Guest", "run"]


@dataclass(frozen=True)
class Guest:
    """The machine.

    :ivar nodes: MiB of memory of each NUMA node
    :ivar below: MiB of memory below 4 GiB, or 0 for as much as a PC has; what is above is ZONE_NORMAL
    :ivar append: added to the kernel's command line (``cma=16M``, ``memmap=8M$64M`` for a hole)
    """

    nodes: tuple[int, ...] = (128,)
    cpus: int = 1
    below: int = 0
    append: str = ""

    def command(self, kernel: Path, initrd: Path, folder: Path) -> list[str]:
        """The command line of qemu, with its files in ``folder``."""
        machine = "pc,accel=tcg" + (f",max-ram-below-4g={self.below}M" if self.below else "")
        command = [QEMU, "-nodefaults", "-display", "none", "-no-reboot", "-machine", machine, "-cpu", "qemu64"]
        command += ["-m", f"{sum(self.nodes)}M", "-smp", str(self.cpus), "-kernel", str(kernel)]
        command += ["-initrd", str(initrd), "-append", f"console=ttyS0 panic=-1 nokaslr {self.append}".strip()]
        command += ["-serial", f"file:{folder / 'console.txt'}", "-qmp", f"unix:{folder / 'qmp'},server=on,wait=off"]
        command += ["-chardev", f"file,id=told,path={folder / 'told'}"]
        command += ["-device", "isa-debugcon,iobase=0xe9,chardev=told", "-device", "pvpanic", "-action", "panic=pause"]
        if len(self.nodes) > 1:
            for node, size in enumerate(self.nodes):
                command += ["-object", f"memory-backend-ram,id=m{node},size={size}M"]
                mine = [cpu for cpu in range(self.cpus) if cpu % len(self.nodes) == node]
                cpus = "".join(f",cpus={cpu}" for cpu in mine)
                command += ["-numa", f"node,nodeid={node},memdev=m{node}{cpus}"]
        return command


def cpio(files: dict[str, bytes]) -> bytes:
    """An initramfs (the "newc" form of cpio)."""
    out = bytearray()
    for number, (name, data) in enumerate([*files.items(), ("TRAILER!!!", b"")], 1):
        fields = (number, 0o100644, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name) + 1, 0)
        out += b"070701" + b"".join(b"%08X" % field for field in fields) + name.encode() + b"\0"
        out += bytes(-len(out) % 4) + data
        out += bytes(-len(out) % 4)
    return bytes(out)


def run(guest: Guest, kernel: Path, script: str, folder: Path, timeout: float = 300.0) -> list[str]:
    """Run a script; ``folder`` gets ``A`` and ``B``, whole memory images, and ``console.txt``.

    :returns: the lines of the results
    :raises UsageError: qemu does not start, or the guest does not come to its end in ``timeout`` seconds
    """
    folder = folder.resolve()
    deadline = time.monotonic() + timeout
    with tempfile.TemporaryDirectory() as name:
        initrd = Path(name) / "initrd"
        initrd.write_bytes(cpio({"script": script.encode()}))
        with running(guest.command(kernel.resolve(), initrd, folder)) as process:
            qmp = Qmp(folder / "qmp", process, deadline)
            for moment in ("A", "B"):
                qmp.wait("GUEST_PANICKED")
                while qmp.ask("query-status")["running"]:
                    time.sleep(0.001)
                target = folder / moment
                qmp.ask("dump-guest-memory", paging=False, protocol=f"file:{target}", format="kdump-zlib")
                qmp.ask("cont")
            lines = _told(folder / "told", process, deadline)
    for left in ("qmp", "told"):
        (folder / left).unlink(missing_ok=True)
    return lines


def _told(path: Path, process: subprocess.Popen[bytes], deadline: float) -> list[str]:
    """What the driver writes at its end, once it is all there."""
    while True:
        ended = process.poll() is not None
        lines = path.read_text().splitlines()
        if lines and lines[-1] == "end":
            return lines[:-1]
        if time.monotonic() > deadline or ended:
            raise UsageError("the guest did not tell its results: see console.txt")
        time.sleep(0.05)
