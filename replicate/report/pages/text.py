"""Text of records and tables on its way into the page: escaped, with code in code's face and errata as links."""

import json
import re

from markupsafe import Markup, escape

CODE = re.compile(r"`([^`]*)`")
ERRATA = re.compile(r"\b(?:erratum|errata) \d+(?:(?:, | and )\d+)*")
NUMBER = re.compile(r"\d+")


def minus(text: str) -> str:
    """Printed numbers with a true minus sign."""
    return text.replace("-", "\N{MINUS SIGN}")


def plain(value: object) -> str:
    """A value of a record in words: yes, no and none; lists without brackets, tables as JSON."""
    if value is None or value == [] or value == ():
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(plain(each) for each in value)
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict) else str(value)


def node(name: str) -> Markup:
    """A node's name, escaped, that may break after its colons."""
    return Markup(str(escape(name)).replace(":", ":<wbr>"))


def rich(text: str) -> Markup:
    """Escaped text in which `code` is set as code and the number of each erratum leads to it."""
    safe = str(escape(text))
    safe = CODE.sub(r"<code>\1</code>", safe)
    return Markup(ERRATA.sub(lambda found: NUMBER.sub(r'<a href="#erratum-\g<0>">\g<0></a>', found.group()), safe))
