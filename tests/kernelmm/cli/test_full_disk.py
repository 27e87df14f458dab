# SPDX-License-Identifier: GPL-2.0-only
"""Every verb that writes an image or a picture, on a disk that is full (ENOSPC): the old file stays, and no litter."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

DATA = Path(__file__).parents[2] / "data"
IMAGE = str(DATA / "vmcores" / "deb61-256m" / "image.vmcore.xz")

#: In a mount namespace of its own: a file system of 16 KiB, an old file on it, the command, and what is there then.
SCRIPT = """
set -e
mount -t tmpfs -o size=16k full "$1"
cd "$1"
printf 'the old file' > "$2"
shift 2
status=0
"$@" || status=$?
ls -A
cat *
exit $status
"""


def in_namespace(*command: str) -> list[str]:
    return ["unshare", "--map-root-user", "--mount", "sh", "-c", *command]


@pytest.fixture(scope="module")
def may_mount(tmp_path_factory: pytest.TempPathFactory) -> None:
    if shutil.which("unshare") is None:
        pytest.skip("no unshare")
    place = str(tmp_path_factory.mktemp("mount"))
    done = subprocess.run(in_namespace('mount -t tmpfs none "$0"', place), capture_output=True, check=False)
    if done.returncode:
        pytest.skip("may not mount a file system in a namespace of its own")


@pytest.mark.usefixtures("may_mount")
@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("out.vmcore", "kernelmm boot --mem 64M -o out.vmcore"),
        ("out.kdump", "kernelmm boot --mem 64M -o out.kdump"),
        ("out.vmcore", f"physmem convert {IMAGE} -o out.vmcore"),
        ("out.vmcore.zst", f"physmem convert {IMAGE} -o out.vmcore.zst"),
        ("out.lime", f"physmem convert {IMAGE} -o out.lime"),
        ("out.kdump", f"physmem distill {IMAGE} -o out.kdump"),
        ("out.html", f"physmem map {IMAGE} -o out.html"),
        ("flags", f"physmem pages {IMAGE} --kpageflags flags"),
    ],
)
def test_no_space_left_on_the_device(tmp_path: Path, project_environment: dict[str, str], name: str, line: str) -> None:
    program, *arguments = line.split()
    command = [sys.executable, "-m", program, *arguments]
    done = subprocess.run(
        in_namespace(SCRIPT, "sh", str(tmp_path), name, *command),
        env=project_environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert done.stderr.splitlines() == [f"{program}: {name}: cannot be written: No space left on device"]
    assert done.stdout == f"{name}\nthe old file"
