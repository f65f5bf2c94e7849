"""The tree of categories as a part of a page: search, counts, the labels of each node. From the committed files alone.

A page that includes `fragment()` adds `style()` to its style sheet and `script()` to its script. Values are escaped;
the part asks for nothing from a network and works from the keyboard, and without its script as well.
"""

from pathlib import Path
from typing import Any

from markupsafe import Markup

from replicate.record import read_json, write_text
from replicate.report.pages.environment import asset, environment, seal
from replicate.taxonomy.browse import Catalogue, read_catalogue
from replicate.taxonomy.examined import count_examined
from replicate.taxonomy.tree import data_folder


def fragment(folder: Path | None = None) -> Markup:
    """The section with heading, search form and tree.

    Args:
        folder: the taxonomy's folder; the committed one if missing.

    Raises:
        DataError: a file of the taxonomy is damaged.
    """
    folder = folder or data_folder()
    catalogue = read_catalogue(folder)
    changed, kept = count_examined(folder)
    text = environment().get_template("taxonomy.html.j2").render(
        tops=[_view(catalogue, top) for top in catalogue.children("")],
        nodes=len(catalogue.scopes),
        labels=len(catalogue.decided_by),
        changed=changed,
        examined=changed + kept,
        label_sets=read_json(folder / "label_set_statistics.json")["videos"],
    )  # fmt: skip
    return Markup(text)  # made by the template, which escapes


def style() -> Markup:
    """The fragment's part of a style sheet; it uses the custom properties of report.css."""
    return asset("taxonomy.css")


def script() -> Markup:
    """The fragment's part of a script."""
    return asset("taxonomy.js")


def make_taxonomy_page(path: Path, folder: Path | None = None) -> Path:
    """Write the fragment as a page of its own: one file that opens from a disk offline."""
    page = environment().get_template("taxonomy_page.html.j2").render(
        fragment=fragment(folder),
        style=asset("report.css") + style(),
        script=script(),
        script_hash=seal(script()),
    )  # fmt: skip
    write_text(path, page)
    return path


def _view(catalogue: Catalogue, path: str) -> dict[str, Any]:
    return {
        "name": path.rpartition(":")[2],
        "scope": catalogue.scopes[path],
        "labels_under": catalogue.labels_under(path),
        "positives": catalogue.statistics[path]["positives"],
        "labels": catalogue.labels.get(path, []),
        "children": [_view(catalogue, child) for child in catalogue.children(path)],
    }
