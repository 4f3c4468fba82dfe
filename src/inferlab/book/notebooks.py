"""Notebooks: run one against the engine that is up, and keep its file in one canonical form."""

import re
from base64 import b64decode, b64encode
from io import BytesIO
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from inferlab.errors import LabError

CELL_TIMEOUT_S = 600
LONGEST_CELL = 12  # lines; anything longer belongs into the library


def execute(path: Path, out: Path) -> None:
    """Run a notebook top to bottom with papermill, in its own folder, and write it clean to `out`.

    `out` is replaced only when every cell ran.

    Raises:
        LabError: a cell failed.
    """
    import papermill
    from papermill.exceptions import PapermillExecutionError

    unfinished = out.with_suffix(".unfinished.ipynb")
    try:
        papermill.execute_notebook(
            str(path),
            str(unfinished),
            cwd=str(path.parent),
            kernel_name="python3",
            execution_timeout=CELL_TIMEOUT_S,
            progress_bar=False,
        )
        write(normalised(nbformat.read(unfinished, as_version=4)), out)
    except PapermillExecutionError as error:
        raise LabError(
            f"{path.name} 第 {error.exec_count} 格失败（{error.ename}：{error.evalue}）",
            remedy="先确认引擎在运行：./lab status",
        ) from error
    finally:
        unfinished.unlink(missing_ok=True)


def normalised(notebook: NotebookNode) -> NotebookNode:
    """The same notebook without what changes from run to run (timings, kernel's host, versions),
    and with its pictures in 256 colours, a third of the bytes.
    """
    notebook.metadata = NotebookNode(
        kernelspec={"display_name": "Python 3", "language": "python", "name": "python3"},
        language_info={"name": "python"},
    )
    for cell in notebook.cells:
        cell.metadata = NotebookNode()
        for output in cell.get("outputs", []):
            if "metadata" in output:
                output.metadata = NotebookNode()
            if png := output.get("data", {}).get("image/png"):
                output.data["image/png"] = with_palette(png)
    return notebook


def with_palette(png: str) -> str:
    """A picture (PNG in base64) in 256 colours of its own; one with a palette stays as it is."""
    from PIL import Image

    picture = Image.open(BytesIO(b64decode(png)))
    if picture.mode == "P":
        return png
    smaller = BytesIO()
    picture.convert("RGB").quantize(method=Image.Quantize.MAXCOVERAGE, kmeans=1).save(
        smaller, "PNG", optimize=True
    )
    return b64encode(smaller.getvalue()).decode()


def write(notebook: NotebookNode, path: Path) -> None:
    """Write a notebook through a temporary file."""
    temporary = path.with_suffix(".tmp")
    nbformat.write(notebook, temporary)
    temporary.replace(path)


def problems(path: Path) -> list[str]:
    """What is wrong with a committed notebook's form; empty when nothing is.

    A notebook without outputs would pass nbval unseen, a failing `!command` raises nothing, and an
    absolute path works on one machine only: hence these checks.
    """
    notebook = nbformat.read(path, as_version=4)
    found = []
    if notebook.metadata.get("kernelspec", {}).get("name") != "python3":
        found.append("kernelspec is not python3")
    counts = []
    for number, cell in enumerate(notebook.cells):
        if cell.cell_type != "code":
            continue
        counts.append(cell.execution_count)
        found += [f"cell {number}: {text}" for text in _cell_problems(cell)]
    if counts != list(range(1, len(counts) + 1)):
        found.append("not executed once, top to bottom, in a fresh kernel")
    if len({cell.id for cell in notebook.cells}) != len(notebook.cells):
        found.append("cell ids are not unique")
    return found


def _cell_problems(cell: NotebookNode) -> list[str]:
    lines, found = cell.source.splitlines(), []
    if any(line.lstrip().startswith("!") for line in lines):
        found.append("bare !command: its failure would go unnoticed")
    if len(lines) > LONGEST_CELL:
        found.append(f"{len(lines)} lines; at most {LONGEST_CELL}")
    if "NBVAL_CHECK_OUTPUT" in cell.source and not cell.outputs:
        found.append("checked by nbval, but has no output to compare")
    if any("NBVAL_" in line and not re.fullmatch(r"# NBVAL_\w+", line) for line in lines):
        found.append("an nbval marker must stand alone on its line")
    shown = cell.source + str(cell.outputs)
    if re.search(r"(?<![\w.:/])/(home|root|work|tmp|Users|workspace)/", shown):
        found.append("absolute path")
    if any(output.output_type == "error" for output in cell.outputs):
        found.append("ended in an error")
    if any(output.get("name") == "stderr" for output in cell.outputs):
        found.append("wrote to stderr")
    return found
