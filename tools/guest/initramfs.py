# SPDX-License-Identifier: GPL-2.0-only
"""The initramfs of a guest: ``init.c``, compiled, and a module if one is given.

Format: Documentation/driver-api/early-userspace/buffer-format.rst ("newc" cpio).
"""

from __future__ import annotations

import lzma
import stat
import subprocess
import tempfile
from pathlib import Path

import zstandard

from physmem.errors import UsageError

__all__ = ["make"]

_SOURCE = Path(__file__).with_name("init.c")


def make(fw_cfg: Path | None, compiler: str = "cc") -> bytes:
    """An uncompressed cpio archive.

    :param fw_cfg: the kernel's ``qemu_fw_cfg`` module, with which it tells the hypervisor where its VMCOREINFO is
    :raises UsageError: there is no C compiler that links statically, or the module cannot be read
    """
    out = bytearray()
    entries = [(name, stat.S_IFDIR | 0o755, b"") for name in ("dev", "proc", "sys", "tmp")]
    entries.append(("dev/console", stat.S_IFCHR | 0o600, b""))
    entries.append(("init", stat.S_IFREG | 0o755, _compile(compiler)))
    if fw_cfg is not None:
        entries.append(("fw_cfg.ko", stat.S_IFREG | 0o644, _module(fw_cfg)))
    for number, (name, mode, data) in enumerate([*entries, ("TRAILER!!!", 0, b"")], 1):
        device = (5, 1) if stat.S_ISCHR(mode) else (0, 0)
        fields = (number, mode, 0, 0, 1, 0, len(data), 0, 0, *device, len(name) + 1, 0)
        out += b"070701" + b"".join(b"%08X" % field for field in fields) + name.encode() + b"\0"
        out += bytes(-len(out) % 4) + data
        out += bytes(-len(out) % 4)
    return bytes(out)


def _compile(compiler: str) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "init"
        command = [compiler, "-static", "-O2", "-Wall", "-Wextra", "-o", str(target), str(_SOURCE)]
        try:
            subprocess.run(command, check=True, capture_output=True, text=True)
        except OSError as error:
            raise UsageError(f"{compiler}: {error.strerror}: a C compiler is needed to make a guest") from None
        except subprocess.CalledProcessError as error:
            raise UsageError(f"{_SOURCE.name} cannot be compiled: {error.stderr.strip()}") from None
        return target.read_bytes()


def _module(path: Path) -> bytes:
    try:
        data = path.read_bytes()
        if path.suffix == ".xz":
            return lzma.decompress(data)
        if path.suffix == ".zst":
            return zstandard.ZstdDecompressor().decompressobj().decompress(data)
    except (OSError, lzma.LZMAError, zstandard.ZstdError) as error:
        raise UsageError(f"{path}: cannot be read: {error}") from None
    return data
