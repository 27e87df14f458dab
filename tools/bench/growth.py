# SPDX-License-Identifier: GPL-2.0-only
"""How cost grows with the size of a machine and with operations: ``python -m tools.bench.growth``.

A power of the size is fitted to the larger half of each row; what grows faster than in proportion is named, and the
exit status is 1.
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import sys
import tempfile
from functools import partial
from pathlib import Path

import numpy as np

from kernelmm import Machine
from tools.bench import scans
from tools.bench.contest import CASES, Contest, operations, random_orders

PICTURE = Path(__file__).resolve().parents[2] / "docs" / "growth.svg"
#: A fitted exponent above this is worse than linear; below, it is noise.
LINEAR = 1.15
_MIB = 1 << 20

Row = list[tuple[float, float]]


def exponent(row: Row) -> float:
    """The power of the size that the cost grows with, where the size is what costs."""
    upper = row[len(row) // 2 - (len(row) > 3) :]
    sizes, seconds = zip(*upper, strict=True)
    return float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0])


def by_size(largest: int, scanned: int) -> dict[str, Row]:
    """Seconds by bytes of memory, of each thing that is done to a machine."""
    rows: dict[str, Row] = {}
    size = 16 * _MIB
    while size <= largest:
        repeats = 3 if size <= 1 << 31 else 1
        rows.setdefault("boot", []).append((size, statistics.median(scans.boot(size) for _ in range(repeats))))
        if size <= scanned:
            with tempfile.TemporaryDirectory(prefix="growth-") as directory:
                machine = Machine.boot(size)
                path = os.path.join(directory, "image.vmcore")
                for name, act in (
                    ("save", partial(scans.saved, machine, path)),
                    ("check", partial(scans.checked, machine.dump)),
                    ("pages", partial(scans.histogram, machine.dump)),
                ):
                    rows.setdefault(name, []).append((size, min(act() for _ in range(repeats))))
        print(f"{size // _MIB} MiB", {name: f"{row[-1][1]:.4f}" for name, row in rows.items() if row[-1][0] == size})
        size *= 4
    return rows


def by_operations(most: int) -> dict[str, Row]:
    """Seconds by operations of a replay of random orders."""
    rows: dict[str, Row] = {"replay": []}
    orders = next(case for case in CASES if case.name == "orders")
    count = 1000
    while count <= most:
        contest = Contest(orders, ops=operations(list(random_orders(count, 3))))
        rows["replay"].append((count, min(contest.ours() for _ in range(5)) * count / 1e9))
        count *= 10
    return rows


def draw(left: dict[str, Row], right: dict[str, Row], path: Path) -> None:
    """Both pictures, on logarithmic axes, with a line that grows in proportion."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "growth"
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(11, 4.2))
    for axis, rows, label, unit in (
        (axes[0], left, "memory, GiB", 1 << 30),
        (axes[1], right, "operations", 1),
    ):
        for name, row in rows.items():
            x, y = zip(*row, strict=True)
            axis.loglog([each / unit for each in x], y, "o-", label=f"{name}: size^{exponent(row):.2f}")
        x0, y0 = next(iter(rows.values()))[-1]
        x1 = next(iter(rows.values()))[0][0]
        axis.loglog([x1 / unit, x0 / unit], [y0 * x1 / x0, y0], "k:", label="in proportion")
        axis.set_xlabel(label)
        axis.set_ylabel("seconds of a processor")
        axis.legend()
        axis.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.bench.growth", description="how cost grows")
    parser.add_argument("--largest", type=int, default=1 << 20, help="MiB of the largest booted (default 1 TiB)")
    parser.add_argument("--scanned", type=int, default=1 << 16, help="MiB of the largest one scanned (default 64 GiB)")
    parser.add_argument("--operations", type=int, default=1_000_000, help="of the longest replay (default a million)")
    parser.add_argument("-o", "--output", type=Path, default=PICTURE, help="the picture (default docs/growth.svg)")
    arguments = parser.parse_args()
    left = by_size(arguments.largest * _MIB, arguments.scanned * _MIB)
    right = by_operations(arguments.operations)
    draw(left, right, arguments.output)
    worse = 0
    for name, row in (left | right).items():
        power = exponent(row)
        assert not math.isnan(power)
        verdict = "" if power <= LINEAR else "  WORSE THAN LINEAR"
        worse += bool(verdict)
        print(f"{name:8} grows with the {power:.2f}th power{verdict}")
    return 1 if worse else 0


if __name__ == "__main__":
    sys.exit(main())
