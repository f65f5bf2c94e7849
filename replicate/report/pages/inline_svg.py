"""A figure's SVG file as a part of an HTML page: ids of its own, colours that follow dark mode, nothing superfluous."""

import re

from markupsafe import Markup

from replicate.report.figures.style import BLUE, INK, MUTED, PAPER, RULE

# Colours of the figures that dark mode changes -> the page's custom properties.
THEME = {
    BLUE.lower(): "var(--blue)",
    INK: "var(--ink)",
    MUTED: "var(--muted)",
    RULE: "var(--rule)",
    PAPER: "var(--paper)",
}
# Prologue, comments, metadata, and a style element that would reach beyond the figure (report.css has its rule).
SUPERFLUOUS = re.compile(r"<\?xml.*?\?>|<!DOCTYPE.*?>|<!--.*?-->|<metadata>.*?</metadata>|<style.*?</style>", re.DOTALL)
ID = re.compile(r'(\bid="|href="#|url\(#)')
SIZE = re.compile(r'(<svg[^>]*?) width="([0-9.]+)pt"([^>]*?) height="[0-9.]+pt"')


def inline_svg(text: str, name: str) -> Markup:
    """The <svg> element of a figure drawn by `style.save`.

    Args:
        text: the SVG file.
        name: prefix of its ids, differs between the figures of a page; `<name>-caption` is the id of its caption.
    """
    text = SUPERFLUOUS.sub("", text).strip()
    text = ID.sub(rf"\g<1>{name}-", text)
    text = SIZE.sub(rf'\1 style="--width: \2pt"\3 role="img" aria-labelledby="{name}-caption"', text, count=1)
    for grey, variable in THEME.items():
        text = text.replace(grey, variable)
    return Markup(re.sub(r"\s*\n\s*", "\n", text))
