"""Protects the notebook: it runs from the first cell to the last, shows pseudo labels and entities in color, and is stored
without what a run leaves in it."""

import re
from html import unescape

import nbformat
import pytest
from nbclient import NotebookClient
from nbformat import NotebookNode
from support import ROOT

PATH = ROOT / "docs" / "notebook.ipynb"


def test_it_is_stored_without_outputs():
    notebook = nbformat.read(PATH, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert len(code) == 4 and all(cell.outputs == [] and cell.execution_count is None for cell in code)
    for name in re.findall(r"docs/[\w.]+\w", "".join(cell.source for cell in notebook.cells)):
        assert (ROOT / name).exists()


@pytest.fixture(scope="module")
def executed(tmp_path_factory) -> list[NotebookNode]:
    """The code cells after a run in a directory of its own."""
    directory = tmp_path_factory.mktemp("notebook")
    notebook = nbformat.read(PATH, as_version=4)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))
        for name in ("IPYTHONDIR", "JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR"):
            patch.setenv(name, str(directory / "jupyter"))
        NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(directory)}}).execute()
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def shown(cell: NotebookNode, kind: str) -> str:
    """What the last line of a cell shows."""
    (result,) = (output for output in cell.outputs if output.output_type == "execute_result")
    return result.data[kind]


@pytest.mark.slow
def test_it_trains_and_shows_what_was_found(executed):
    train, review, tag, load = executed
    said = "".join(output.get("text", "") for output in train.outputs)
    assert "entity scores, en -> de" in said + str(train.outputs)
    page = unescape(shown(review, "text/html"))
    assert page.count("<article>") == 10 and page.count("first pseudo labels") == 10
    assert re.search(r'<mark[^>]* style="background: #\w{6}', page)
    entities = re.findall(r'<mark style="background: #\w{6};[^>]*>(.*?)<bdi', shown(tag, "text/html"))
    assert "Hamburg" in entities
    assert f"'word': '{entities[0]}'" in shown(load, "text/plain")
