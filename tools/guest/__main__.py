# SPDX-License-Identifier: GPL-2.0-only
"""``python -m tools.guest``: boot a kernel, use its memory, dump it, and keep what it said of its pages.

The folder gets ``dump.elf`` and others, as ``--format`` says, ``console.txt``, and in ``truth/`` the files of
the guest's /proc as they were at the moment of the dump (kpageflags and kpagecount in binary, gzipped; kallsyms too).
"""

from __future__ import annotations

import argparse
import gzip
import os
import sys
import tempfile
from pathlib import Path

from physmem.errors import PhysmemError
from tools.guest import initramfs, machine

_PACKED = ("kpageflags", "kpagecount", "kallsyms")


def main() -> int:
    example = "example: python -m tools.guest --kernel vmlinuz --fw-cfg qemu_fw_cfg.ko --memory 4G -o out"
    parser = argparse.ArgumentParser(prog="python -m tools.guest", description=__doc__, epilog=example)
    parser.add_argument("--kernel", type=Path, required=True, help="a bzImage (Debian: /boot/vmlinuz-RELEASE)")
    parser.add_argument("--fw-cfg", type=Path, help="its module qemu_fw_cfg.ko: the dump then has a VMCOREINFO note")
    parser.add_argument("--memory", default="256M", help="as qemu takes it (default 256M)")
    parser.add_argument("--cpus", type=int, default=1)
    parser.add_argument("--nodes", type=int, default=1, help="NUMA nodes; at least as many CPUs")
    parser.add_argument("--levels", type=int, default=4, choices=(4, 5), help="of page tables (default 4)")
    parser.add_argument("--accel", default="tcg", choices=("kvm", "tcg"), help="kvm is faster, and not everywhere")
    parser.add_argument("--cpu", help="qemu's -cpu (default: max with tcg, host with kvm)")
    parser.add_argument("--append", default="", help="for the kernel's command line, as nokaslr")
    parser.add_argument("--format", action="append", choices=tuple(machine.FORMATS), help="default: elf and kdump")
    parser.add_argument("--timeout", type=float, default=180.0, help="seconds for all of it (default 180)")
    parser.add_argument("-o", "--output", type=Path, required=True, help="a folder")
    arguments = parser.parse_args()

    folder = arguments.output.resolve()
    truth = folder / "truth"
    truth.mkdir(parents=True, exist_ok=True)
    guest = machine.Guest(
        kernel=arguments.kernel,
        memory=arguments.memory,
        cpus=max(arguments.cpus, arguments.nodes),
        nodes=arguments.nodes,
        cpu=arguments.cpu or ("host" if arguments.accel == "kvm" else "max"),
        levels=arguments.levels,
        accel=arguments.accel,
        append=arguments.append,
    )
    with tempfile.NamedTemporaryFile(suffix=".cpio") as initrd:
        initrd.write(initramfs.make(arguments.fw_cfg, os.environ.get("CC", "cc")))
        initrd.flush()
        said = machine.dump(guest, Path(initrd.name), folder, arguments.format or ["elf", "kdump"], arguments.timeout)
    for name, data in said.items():
        if name in _PACKED:
            (truth / f"{name}.gz").write_bytes(gzip.compress(data, 6, mtime=0))
        else:
            (truth / f"{name}.txt").write_bytes(data)
    for left in ("qmp", "truth.bin"):
        (folder / left).unlink(missing_ok=True)
    print(said.get("version", b"?").decode().strip())
    for path in sorted(folder.rglob("*.*")):
        print(f"{path.stat().st_size:12}  {path.relative_to(folder)}")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except PhysmemError as error:
        print(f"guest: {error}", file=sys.stderr)
        sys.exit(2)
