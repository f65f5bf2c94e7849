"""Parts of README.md and PAPER.md that are generated: they stand between two comments, and nobody edits them by hand.

A part named `claims` stands between `<!-- claims -->` and `<!-- /claims -->`.
"""

from pathlib import Path

from replicate.errors import ConfigurationError
from replicate.record import write_text
from replicate.report.pages import card, paper
from replicate.report.records import Records


def replace_part(text: str, name: str, body: str) -> str:
    """The text with the part's content replaced.

    Raises:
        ConfigurationError: the two comments are not there once each, in order.
    """
    opening, closing = f"<!-- {name} -->", f"<!-- /{name} -->"
    before, found, rest = text.partition(opening)
    _, ended, after = rest.partition(closing)
    if not found or not ended or opening in after or closing in before + after:
        raise ConfigurationError(f"the page must hold {opening} and {closing} once each, in this order")
    return f"{before}{opening}\n{body.strip()}\n{closing}{after}"


def published(results: Path) -> list[Records]:
    """The records of every run under a folder of published results, by profile's name."""
    folders = sorted(path.parent.parent for path in Path(results).glob("*/records/run.json"))
    return [Records.open(folder) for folder in folders]


def current_pages(root: Path, results: Path) -> dict[Path, str]:
    """What README.md and PAPER.md of a checkout should say, given the published results.

    Raises:
        ConfigurationError: nothing is published there; a page is missing, or lacks the comments of a part.
    """
    runs = published(results)
    if not runs:
        remedy = "name the folder above those of the profiles, as results"
        raise ConfigurationError(f"{results} holds no profile's published results; {remedy}")
    cards = [card.card(run) for run in runs]
    parts = {
        "README.md": {"results": card.brief(cards)},
        "PAPER.md": {"verdicts": card.markdown(cards), **paper.parts(runs)},
    }
    pages = {}
    for name, bodies in parts.items():
        path = Path(root) / name
        try:
            text = path.read_text(encoding="utf-8")
            for part, body in bodies.items():
                text = replace_part(text, part, body)
        except FileNotFoundError:
            raise ConfigurationError(f"{path} is missing; run the command in the project's folder") from None
        except ConfigurationError as error:
            raise ConfigurationError(f"{path}: {error}") from None
        pages[path] = text
    return pages


def update_pages(root: Path, results: Path) -> list[Path]:
    """Rewrite the generated parts of README.md and PAPER.md; the files that changed."""
    changed = []
    for path, text in current_pages(root, results).items():
        if path.read_text(encoding="utf-8") != text:
            write_text(path, text)
            changed.append(path)
    return changed
