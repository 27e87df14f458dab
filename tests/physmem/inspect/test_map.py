# SPDX-License-Identifier: GPL-2.0-only
"""Pictures of physical memory: what is drawn is what the free lists and the page array say."""

from __future__ import annotations

import json
import subprocess
import sys
import xml.etree.ElementTree as ET
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from kernelmm import Machine
from physmem.cli import main
from physmem.dump import open_dump
from physmem.inspect.map import KINDS, cells, chart, html, terminal
from physmem.inspect.map.kinds import FREE, NOTHING, SUSPICIOUS
from physmem.inspect.zones import populated_zones
from tests.browser import Browser

DATA = Path(__file__).parents[2] / "data"
S1 = DATA / "oracle" / "n128_s1" / "A.vmcore.xz"
IMAGES = [
    S1,
    DATA / "oracle" / "n256x2_s6n" / "A.vmcore.xz",
    *(DATA / "vmcores" / name / "image.vmcore.xz" for name in ("deb510-512m", "deb612-256m", "deb72-1g-2node")),
]


@pytest.mark.parametrize("path", IMAGES, ids=lambda each: each.parent.name)
def test_counts_are_what_the_zones_say(path: Path) -> None:
    with open_dump(path) as dump:
        drawn = chart(dump)
        zones = list(populated_zones(dump))
    assert [(z.node, z.name) for z in drawn.zones] == [(z.node, z.name) for z in zones]
    for picture, zone in zip(drawn.zones, zones, strict=True):
        assert picture.counts.sum() == zone.spanned
        assert picture.counts[FREE : FREE + 11].tolist() == [n << order for order, n in enumerate(zone.nr_free)]
        assert picture.counts[SUSPICIOUS] == 0


def test_a_cell_of_one_page_has_its_kind() -> None:
    machine = Machine.attach(S1)
    page = machine.alloc_pages(0xD0, 3)
    assert page is not None
    pfn = machine.page_to_pfn(page)
    machine.free_block(page, 3)
    zone = next(z for z in chart(machine.dump).zones if z.start_pfn <= pfn < z.end_pfn)
    assert KINDS[zone.kinds[pfn - zone.first_pfn]].name.startswith("free, order ")
    page_in_use = machine.alloc_pages(0xD0, 3)
    assert page_in_use is not None
    pfn = machine.page_to_pfn(page_in_use)
    zone = next(z for z in chart(machine.dump).zones if z.start_pfn <= pfn < z.end_pfn)
    assert not KINDS[zone.kinds[pfn - zone.first_pfn]].name.startswith("free")


def test_a_contradiction_is_suspicious_and_never_outvoted() -> None:
    machine = Machine.attach(S1)
    zone = max(populated_zones(machine.dump), key=lambda z: z.nr_free[10])
    pfn = machine.page_to_pfn(zone.free_lists[10][2].next - machine.dump.layout.offsetof("page", "lru"))
    machine.kernel.ram.write(machine.dump.virt_to_phys(machine.pfn_to_page(pfn + 5)) + 0x1C, b"\x07\0\0\0")
    for limit in (cells.MAX_CELLS, 64):
        drawn = chart(machine.dump, limit)
        assert drawn.counts[SUSPICIOUS] == 1
        assert sum(int((z.kinds == SUSPICIOUS).sum()) for z in drawn.zones) == 1


@pytest.mark.parametrize("limit", [1 << 21, 5000, 300, 1])
def test_larger_cells_lose_no_page(limit: int) -> None:
    with open_dump(S1) as dump:
        drawn, exact = chart(dump, limit), chart(dump)
    assert drawn.counts.tolist() == exact.counts.tolist()
    for coarse, fine in zip(drawn.zones, exact.zones, strict=True):
        first, last = coarse.start_pfn >> drawn.shift, (coarse.end_pfn - 1) >> drawn.shift
        where = np.flatnonzero(coarse.kinds != NOTHING) + (coarse.first_pfn >> drawn.shift)
        assert (where[0], where[-1], len(where)) == (first, last, last - first + 1)
        assert set(np.unique(coarse.kinds)) <= set(np.unique(fine.kinds)) | {NOTHING}


@pytest.mark.parametrize("order", range(11))
def test_an_aligned_block_is_a_square_or_two(order: int) -> None:
    numbers = np.arange(2 * cells.TILE_CELLS) >> order
    image = cells.tiles((numbers % 251).astype(np.uint8), 2)
    for number in {0, 1, int(numbers[-1])}:
        rows, columns = np.nonzero(image == number % 251)
        height, width = np.ptp(rows) + 1, np.ptp(columns) + 1
        if (numbers[-1] + 1) <= 251:
            assert height * width == 1 << order
            assert width in (height, 2 * height)


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(main, list(arguments), prog_name="physmem")
    return result.exit_code, result.output


def test_the_files(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    for name in ("a.png", "b.png", "a.svg", "b.svg", "a.html"):
        path = tmp_path / name
        assert run("map", str(S1), "-o", str(path)) == (0, f"{path}: 32735 page frames, a cell is 1 page\n")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert ET.parse(tmp_path / "a.svg").getroot().tag == "{http://www.w3.org/2000/svg}svg"
    text = (tmp_path / "a.html").read_text()
    assert "http" not in text.replace("http-equiv", "")


def test_every_cell_has_its_colour() -> None:
    pytest.importorskip("matplotlib")
    from matplotlib.image import imread

    from physmem.inspect.map import figure

    with open_dump(DATA / "vmcores" / "deb61-1g-2node" / "image.vmcore.xz") as dump:
        chart = cells.chart(dump)
    pixels = imread(BytesIO(figure.picture(chart, "png")))
    axes = figure.figure(chart).axes
    across = axes[-1].images[0].get_size()[1] // cells.TILE
    for zone, drawn in zip(chart.zones, axes, strict=True):
        kinds = cells.tiles(zone.kinds, across)
        # Not those at the edges of tiles, which a white line may cover.
        rows, columns = np.nonzero(kinds != NOTHING)
        inside = (rows % cells.TILE % (cells.TILE - 1) > 0) & (columns % cells.TILE % (cells.TILE - 1) > 0)
        rows, columns = rows[inside], columns[inside]
        assert len(rows)
        x, y = drawn.transData.transform(np.stack([columns, rows], 1)).T.astype(int)
        expected = np.array([[int(kind.colour[i : i + 2], 16) for i in (1, 3, 5)] for kind in KINDS])
        seen = np.round(pixels[pixels.shape[0] - 1 - y, x, :3] * 255)
        assert (seen == expected[kinds[rows, columns]]).all()


def test_a_picture_of_many_cells_takes_little_memory(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    program = (
        "import sys; from physmem.cli import main; main(sys.argv[1:], standalone_mode=False);"
        "status = open('/proc/self/status').read().split();"
        "print(status[status.index('VmHWM:') + 1], file=sys.stderr)"
    )
    image = DATA / "vmcores" / "deb61-1g-2node" / "image.vmcore.xz"
    words = [sys.executable, "-c", program, "map", str(image), "-o", str(tmp_path / "a.png")]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=True)
    assert int(done.stderr.split()[-1]) >> 10 < 150


def test_an_unknown_ending_writes_nothing(tmp_path: Path) -> None:
    code, output = run("map", str(S1), "-o", str(tmp_path / "a.gif"))
    assert code == 2
    assert "ends in .png, .svg, .html" in output
    assert list(tmp_path.iterdir()) == []


def test_without_matplotlib_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    code, output = run("map", str(S1), "-o", str(tmp_path / "a.png"))
    assert code == 2
    assert "pip install 'physmem[plot]'" in output
    assert list(tmp_path.iterdir()) == []


def test_terminal_and_json() -> None:
    code, output = run("map", str(S1))
    assert code == 0
    assert "node 0 zone DMA: pfn 1 to 4095" in output
    assert "free, order 10 22528" in output
    code, output = run("map", str(S1), "--json")
    found = json.loads(output)
    assert (code, found["pages"]["free, order 10"]) == (0, 22528)


def test_terminal_lines_are_no_wider_than_asked() -> None:
    with open_dump(S1) as dump:
        drawn = chart(dump, terminal.CELLS)
    pixels = [line for line in terminal.draw(drawn, 100) if "▀" in line.plain]
    assert pixels
    assert all(line.cell_len <= 100 for line in pixels)


def test_the_page_in_a_browser(browser: Browser, tmp_path: Path) -> None:
    with open_dump(S1) as dump:
        drawn = chart(dump)
    path = tmp_path / "map.html"
    path.write_text(html.page(drawn))
    with browser.open(path) as page:
        for _ in range(200):
            if page.evaluate("document.body.dataset.ready") == "yes":
                break
            page.evaluate("new Promise(r => setTimeout(r, 20))")
        rows = page.evaluate("[...document.querySelectorAll('#legend li')].map(e => e.innerText.replace(/\\s+/g, ' '))")
        shown = [f"{k.name} {n:,}" for k, n in zip(KINDS, drawn.counts.tolist(), strict=True) if n]
        assert [row.strip() for row in rows] == shown
        # Point at a page: the middle of its cell, as the page itself placed it.
        zone = drawn.zones[1]
        pfn = zone.first_pfn + int(np.flatnonzero(zone.kinds == FREE + 10)[7])
        place = f"""(() => {{
            const zone = chart.zones[1], i = {pfn} - zone.first, tile = Math.floor(i / CELLS), c = i % CELLS;
            const x = tile % zone.across * TILE + cellX[c] + .5;
            const y = Math.floor(tile / zone.across) * TILE + cellY[c] + .5;
            const box = canvas.getBoundingClientRect();
            return [box.x + view.x + x * view.scale, box.y + topOf(1) + y * view.scale]; }})()"""
        for _ in range(2):
            x, y = page.evaluate(place)
            page.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
            assert page.evaluate("tip.style.display") == "block"
            tip = page.text("#tip")
            assert f"pfn {pfn} (0x{pfn:x})" in tip
            assert "free, order 10" in tip
            assert f"block of 1024 pages from pfn {pfn // 1024 * 1024}" in tip
            before = page.evaluate("view.scale")
            page.call("Input.dispatchMouseEvent", type="mouseWheel", x=x, y=y, deltaX=0, deltaY=-120)
            page.evaluate("new Promise(r => setTimeout(r, 50))")
        assert page.evaluate("view.scale") > before / 1.01
        page.evaluate("view.scale = 1; whole()")
        page.click("#legend li:last-child")
        assert page.count("#legend li.off") == len(shown) - 1
        assert page.problems == []
