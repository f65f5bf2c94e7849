"""LaTeX by jinja2: templates in which every value is escaped."""

from importlib import resources

import jinja2

_LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "†": r"$\dagger$",
    "−": "$-$",
    "α": r"$\alpha$",
}


def latex_escape(text: object) -> str:
    """Text with every character that LaTeX would act on written out."""
    return "".join(_LATEX.get(letter, letter) for letter in str(text))


def latex(template: str, **values: object) -> str:
    """Fill a LaTeX template (`templates/<name>`); every value that is put in is escaped.

    Blocks are `<% %>`, values `<< >>`, because braces and percent signs are LaTeX's own.
    """
    environment = jinja2.Environment(
        block_start_string="<%",
        block_end_string="%>",
        variable_start_string="<<",
        variable_end_string=">>",
        comment_start_string="<#",
        comment_end_string="#>",
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
        finalize=latex_escape,
        autoescape=False,
    )
    source = (resources.files("replicate.report.tables") / "templates" / template).read_text(encoding="utf-8")
    return environment.from_string(source).render(**values)
