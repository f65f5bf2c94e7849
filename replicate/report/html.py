"""The report: one HTML file with everything in it, made of records and figures, that opens from a disk offline.

Values reach the page through jinja2's escaping; the figures' SVG, this package's own CSS and JavaScript are the only
text that does not. A content security policy forbids every request and every script but that one.
"""

import base64
import hashlib
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from replicate.record import read_json, write_text
from replicate.report.figures import INDEX, make_figures, records_digest
from replicate.report.inline_svg import inline_svg
from replicate.report.records import CONDITIONAL, Records

REPORT = "report.html"


def make_report(folder: Path) -> Path:
    """Write `folder`/report.html from `folder`/records; figures of other records than these are made anew first.

    Raises:
        MissingResult: a record that every run has is missing or damaged.
    """
    folder = Path(folder)
    records = Records.open(folder)
    page = environment().get_template("report.html.j2").render(
        records=records,
        run=records.run,
        conditional=CONDITIONAL if len(records.run.seeds) == 1 else None,
        figures=figure_views(folder),
        **assets(),
    )  # fmt: skip
    write_text(folder / REPORT, page)
    return folder / REPORT


def environment() -> jinja2.Environment:
    """Templates in which every value is escaped and a missing one is an error."""
    made = jinja2.Environment(
        loader=jinja2.PackageLoader("replicate.report", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["thousands"] = lambda value: f"{value:,}"
    return made


def assets() -> dict[str, str]:
    """Style sheet, script, and the hash of the script by which the page's policy knows it."""
    templates = resources.files("replicate.report") / "templates"
    style, script = ((templates / name).read_text(encoding="utf-8") for name in ("report.css", "report.js"))
    seal = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return {"style": Markup(style), "script": Markup(script), "script_hash": f"'sha256-{seal}'"}


def figure_views(folder: Path) -> list[dict[str, Any]]:
    """The figures' index, with the SVG of each that could be made."""
    index = folder / "figures" / INDEX
    if not index.is_file() or read_json(index)["records"] != records_digest(folder):
        make_figures(folder)
    return [entry | {"svg": _svg(folder, entry)} for entry in read_json(index)["figures"]]


def _svg(folder: Path, entry: dict[str, Any]) -> Markup | None:
    if not entry["files"]:
        return None
    return inline_svg((folder / "figures" / f"{entry['name']}.svg").read_text(encoding="utf-8"), entry["name"])
