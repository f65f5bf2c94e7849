"""The pages' templates, style sheets and scripts, as this package carries them (`templates/`)."""

import base64
import hashlib
from importlib import resources

import jinja2
from markupsafe import Markup

from replicate.report.pages.text import minus, node, plain, rich


def environment() -> jinja2.Environment:
    """HTML templates in which every value is escaped and a missing one is an error, with filters for text."""
    made = jinja2.Environment(
        loader=jinja2.PackageLoader("replicate.report.pages", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {"minus": minus, "node": node, "plain": plain, "rich": rich, "thousands": thousands}
    return made


def thousands(value: float) -> str:
    """A number with thousands separated."""
    return f"{value:,}"


def asset(name: str) -> Markup:
    """A style sheet or script of ours, which needs no escaping."""
    return Markup((resources.files("replicate.report.pages") / "templates" / name).read_text(encoding="utf-8"))


def seal(script: str) -> str:
    """The hash of a script by which a page's content security policy knows it."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"
