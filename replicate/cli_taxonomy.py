"""Verbs about the taxonomy: its stage, and ways to look at the tree and the label map."""

import click

from replicate.command import Command, shared_options


@click.group(invoke_without_command=True)
@shared_options
@click.pass_context
def taxonomy(context: click.Context, command: Command) -> None:
    """Build the tree and the node of every label (no verb), or look at them.

    \b
    replicate taxonomy
    replicate taxonomy --profile audioset --data-dir ~/data
    """
    if context.invoked_subcommand is None:
        command.finish([command.graph.taxonomy])
