# SPDX-License-Identifier: GPL-2.0-only
"""A guest under qemu, and the conversation with it (QMP: a JSON object a line, on a socket)."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from physmem.errors import UsageError

__all__ = ["QEMU", "Guest", "Qmp", "dump", "running"]

QEMU = "qemu-system-x86_64"
#: What dump files are called, and qemu's names of their formats.
FORMATS = {"elf": "elf", "kdump": "kdump-zlib", "kdump-lzo": "kdump-lzo", "kdump-snappy": "kdump-snappy"}


@dataclass(frozen=True)
class Guest:
    """What is booted.

    :ivar memory: as qemu takes it: ``4G``
    :ivar levels: of page tables: 4 or 5, as far as the CPU has them (with ``tcg`` it does)
    :ivar append: added to the kernel's command line
    """

    kernel: Path
    memory: str = "256M"
    cpus: int = 1
    nodes: int = 1
    levels: int = 4
    cpu: str = "max"
    accel: str = "tcg"
    machine: str = "q35"
    append: str = ""
    vmcoreinfo: bool = True

    def command(self, folder: Path, initrd: Path) -> list[str]:
        """The command line of qemu, with its files in ``folder``."""
        command = [QEMU, "-nodefaults", "-display", "none", "-no-reboot", "-nographic"]
        command += [
            "-machine",
            f"{self.machine},accel={self.accel}",
            "-cpu",
            f"{self.cpu},la57={'on' if self.levels == 5 else 'off'}",
        ]
        command += ["-m", self.memory, "-smp", str(self.cpus), "-kernel", str(self.kernel), "-initrd", str(initrd)]
        command += ["-append", f"console=ttyS0 quiet rdinit=/init panic=-1 {self.append}".strip()]
        command += ["-serial", f"file:{folder / 'console.txt'}", "-qmp", f"unix:{folder / 'qmp'},server=on,wait=off"]
        command += ["-chardev", f"file,id=truth,path={folder / 'truth.bin'}"]
        command += ["-device", "isa-debugcon,iobase=0xe9,chardev=truth"]
        command += ["-device", "pvpanic", "-action", "panic=pause"]
        if self.vmcoreinfo:
            command += ["-device", "vmcoreinfo"]
        if self.nodes > 1:
            number, unit = int(self.memory[:-1]), self.memory[-1]
            size = f"{number * 1024 // self.nodes}{'M' if unit == 'G' else 'K'}"
            for node in range(self.nodes):
                command += ["-object", f"memory-backend-ram,id=m{node},size={size}"]
                command += ["-numa", f"node,nodeid={node},memdev=m{node},cpus={node}"]
        return command


def dump(guest: Guest, initrd: Path, folder: Path, formats: list[str], timeout: float) -> dict[str, bytes]:
    """Boot a guest, dump it into ``folder`` when it stops, and return what it said then: the contents of its files.

    :raises UsageError: there is no qemu, it does not start, or the guest does not come so far in ``timeout`` seconds
    """
    if shutil.which(QEMU) is None:
        raise UsageError(f"{QEMU}: not found (Debian: apt install qemu-system-x86)")
    with running(guest.command(folder, initrd)) as process:
        deadline = time.monotonic() + timeout
        qmp = Qmp(folder / "qmp", process, deadline)
        qmp.wait("GUEST_PANICKED")
        while qmp.ask("query-status")["running"]:
            time.sleep(0.001)
        for name in formats:
            target = folder / f"dump.{name}"
            qmp.ask("dump-guest-memory", paging=False, protocol=f"file:{target}", format=FORMATS[name])
        qmp.ask("cont")
        try:
            process.wait(max(1.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            raise UsageError("the guest did not end after it was dumped") from None
    return _truth((folder / "truth.bin").read_bytes())


@contextmanager
def running(command: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    """A program that is killed at the end, whatever happens."""
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


class Qmp:
    """The socket of a qemu that was just started."""

    def __init__(self, path: Path, process: subprocess.Popen[bytes], deadline: float) -> None:
        self._process = process
        self._deadline = deadline
        self._events: list[str] = []
        self._socket = socket.socket(socket.AF_UNIX)
        while True:
            if process.poll() is not None:
                assert process.stderr is not None
                said = process.stderr.read().decode(errors="replace").strip()
                raise UsageError(f"{QEMU} ended with {process.returncode}: {said}")
            try:
                self._socket.connect(str(path))
                break
            except OSError:
                if time.monotonic() > deadline:
                    raise UsageError(f"{QEMU} does not answer") from None
                time.sleep(0.02)
        self._file = self._socket.makefile("rw")
        self._line()
        self.ask("qmp_capabilities")

    def ask(self, command: str, **arguments: Any) -> Any:
        self._file.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
        self._file.flush()
        while True:
            answer = self._line()
            if "error" in answer:
                raise UsageError(f"{QEMU}: {command}: {answer['error']['desc']}")
            if "return" in answer:
                return answer["return"]

    def wait(self, event: str) -> None:
        """Wait for the next event of this name."""
        while event not in self._events:
            self._line()
        self._events.remove(event)

    def _line(self) -> dict[str, Any]:
        self._socket.settimeout(max(0.1, self._deadline - time.monotonic()))
        try:
            line = self._file.readline()
        except TimeoutError:
            raise UsageError("the guest takes too long: see console.txt") from None
        except ConnectionError:
            line = ""
        if not line:
            self._process.wait(10)
            assert self._process.stderr is not None
            said = self._process.stderr.read().decode(errors="replace").strip().splitlines()
            raise UsageError(f"the guest ended before it was dumped: {said[0] if said else 'see console.txt'}")
        answer: dict[str, Any] = json.loads(line)
        if "event" in answer:
            self._events.append(answer["event"])
        return answer


def _truth(data: bytes) -> dict[str, bytes]:
    """The files in what the guest sent: each behind a line with its name and size."""
    found = {}
    while data:
        head, _, data = data.partition(b"\n")
        name, size = head.decode().split()
        found[name], data = data[: int(size)], data[int(size) :]
    return found
