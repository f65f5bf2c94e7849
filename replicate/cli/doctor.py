"""The verb that looks at the machine."""

import json
import textwrap
from typing import Any

import click

from replicate.cli.command import Command, shared_options

HEADINGS = {
    "paper": "This machine beside the paper's (section 4.2)",
    "profile": "For the {profile} profile",
    "software": "Installed",
}
WIDTH = 100


@click.command()
@shared_options
@click.option("--json", "as_json", is_flag=True, help="An object instead of text.")
def doctor(command: Command, as_json: bool) -> None:
    """Look at this machine: beside the paper's, for the profile, and what is installed. Always ends with exit code 0.

    \b
    replicate doctor
    replicate doctor --profile paper --data-dir ~/yt8m
    replicate doctor --json
    """
    from replicate.doctor import examine

    found = examine(command.profile, command.settings.data_dir, command.settings.runs)
    click.echo(json.dumps(found, indent=1, ensure_ascii=False) if as_json else as_text(found))


def as_text(found: dict[str, Any]) -> str:
    """The findings by group, a line each, what it means below it."""
    lines = []
    for group, heading in HEADINGS.items():
        rows = [finding for finding in found["findings"] if finding["group"] == group]
        width = max(len(finding["topic"]) for finding in rows)
        lines += ["", heading.format(profile=found["profile"])] if lines else [heading]
        for finding in rows:
            head = f"  {finding['topic']:<{width}}  {finding['state']:<9}  "
            there = "the paper's" if group == "paper" else "expected"
            text = f"{finding['here']}; {there}: {finding['expected']}"
            lines += textwrap.wrap(text, WIDTH, initial_indent=head, subsequent_indent=" " * len(head))
            if finding["meaning"]:
                indent = " " * len(head)
                lines += textwrap.wrap(
                    finding["meaning"], WIDTH, initial_indent=f"{indent}-> ", subsequent_indent=indent
                )
    return "\n".join(lines)
