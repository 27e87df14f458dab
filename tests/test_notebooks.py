# SPDX-License-Identifier: GPL-2.0-only
"""The notebooks run from top to bottom, and show what they promise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

nbformat = pytest.importorskip("nbformat", reason="no notebooks without nbformat and nbclient (pip install '.[test]')")
nbclient = pytest.importorskip("nbclient", reason="no notebooks without nbformat and nbclient (pip install '.[test]')")
pytest.importorskip("ipykernel", reason="no notebooks without ipykernel (pip install '.[test]')")

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))
#: What an output of each notebook has in it: words of its HTML or text.
SHOWN = {
    "address-translation": [
        "SPARSEMEM_VMEMMAP *",
        "both agree",
        "byte 28 of the struct page of pfn 20480",
        "not canonical",
        "quiz translate, seed 7",
    ],
    "life-of-a-page": [
        "<b>__rmqueue_smallest</b>",
        "<b>__free_one_page</b>",
        "(0, -128)",
        "private: 0 -> ",
        "nonzero _count",
        "quiz buddy, seed 7",
    ],
}


def test_there_are_two() -> None:
    assert [path.stem for path in NOTEBOOKS] == sorted(SHOWN)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_outputs_are_not_kept(path: Path) -> None:
    """They are made anew: in git they would only be out of date."""
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type == "code":
            assert cell.outputs == []
            assert cell.execution_count is None


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_runs(
    path: Path, project_environment: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The notebook's process inherits the environment.
    monkeypatch.setenv("PYTHONPATH", project_environment["PYTHONPATH"])
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    notebook = nbformat.read(path, as_version=4)
    resources = {"metadata": {"path": str(tmp_path)}}
    client = nbclient.NotebookClient(notebook, timeout=120, kernel_name="python3", resources=resources)
    client.execute()
    shown = "".join(text for cell in notebook.cells for text in outputs(cell))
    for words in SHOWN[path.stem]:
        assert words in shown, words


def outputs(cell: Any) -> list[str]:
    found = []
    for output in cell.get("outputs", []):
        assert output.output_type != "error"
        assert output.get("name") != "stderr", output.text
        found.append(output.get("text", ""))
        found += [output.get("data", {}).get(kind, "") for kind in ("text/plain", "text/html")]
    return found
