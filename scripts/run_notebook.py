"""Run the notebook of the documentation and store its output in it, for readers who do not run it.

    pip install nbclient ipykernel matplotlib
    python scripts/run_notebook.py

Pictures are stored as JPEG: a tenth of the size of matplotlib's PNG.
"""

from __future__ import annotations

import base64
import io
import sys
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from PIL import Image

NOTEBOOK = Path(__file__).parents[1] / "docs" / "examples" / "quickstart.ipynb"


def as_jpeg(png: str) -> str:
    """Return a base64-encoded PNG as a base64-encoded JPEG."""
    written = io.BytesIO()
    Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB").save(written, "JPEG", quality=80)
    return base64.b64encode(written.getvalue()).decode()


def shown(output: dict[str, Any]) -> dict[str, Any]:
    """Return an output with its picture as JPEG."""
    data = output.get("data", {})
    if "image/png" in data:
        output = {**output, "data": {"image/jpeg": as_jpeg(data["image/png"])}}
    return output


def main() -> int:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    NotebookClient(notebook, timeout=600, kernel_name="python3").execute()
    for cell in notebook.cells:
        cell.metadata = {}  # the times of the run
        if cell.cell_type == "code":
            cell.outputs = [nbformat.from_dict(shown(output)) for output in cell.outputs]
    notebook.metadata = {key: notebook.metadata[key] for key in ("kernelspec", "language_info")}
    notebook.metadata["language_info"] = {"name": "python"}
    nbformat.validate(notebook)
    nbformat.write(notebook, NOTEBOOK)
    return 0


if __name__ == "__main__":
    sys.exit(main())
