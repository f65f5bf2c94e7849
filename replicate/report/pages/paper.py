"""The generated parts of PAPER.md: claims with their verdicts, the 46 errata, and what the real label sets say."""

import functools
import json
import tomllib
from collections.abc import Sequence
from importlib import resources

import pydantic

from replicate.report import render
from replicate.report.claims.claim import Claim
from replicate.report.claims.judging import judge_records, registry, rule_letters
from replicate.report.records import Records


class Erratum(pydantic.BaseModel):
    """One row of errata.toml: an error or ambiguity of the paper, our default, the option, and where it lives."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)

    number: int
    about: str
    item: str
    default: str
    option: str
    where: tuple[str, ...]
    state: str


STATES = {
    "option": "default and option run",
    "default": "default runs",
    "shown": "shown by a table, claim or page",
    "stated": "stated",
}


@functools.cache
def errata() -> tuple[Erratum, ...]:
    """All errata, by number."""
    text = (resources.files("replicate.report.pages") / "errata.toml").read_text(encoding="utf-8")
    return tuple(Erratum.model_validate(row) for row in tomllib.loads(text)["erratum"])


def parts(runs: Sequence[Records]) -> dict[str, str]:
    """The generated parts of PAPER.md by name.

    Args:
        runs: published runs; each gives the claims table a column of verdicts.
    """
    return {"claims": claims_table(runs), "errata": errata_table(), "label-sets": label_sets_table()}


def claims_table(runs: Sequence[Records]) -> str:
    """Every claim with statistic, rule, place in the code, and its verdict on every published run."""
    claims = registry()
    verdicts = [{result.name: result.verdict for result in judge_records(run)} for run in runs]
    letters = rule_letters()
    rules = "\n".join(f"- Rule {letter}: {rule}." for rule, letter in letters.items())
    headers = ["Claim", "Section", "Statistic", "Rule", "Where in code", *(run.label for run in runs)]
    rows = [
        [
            claim.text,
            claim.section,
            claim.statistic,
            letters[claim.rule],
            f"`{place(claim)}`",
            *(v[claim.name] for v in verdicts),
        ]
        for claim in claims
    ]
    return "\n\n".join([rules, render.markdown_plain(headers, rows)])


def place(claim: Claim) -> str:
    """The file of a claim's judge."""
    return claim.judge.__module__.replace(".", "/") + ".py"


def errata_table() -> str:
    """All errata in order."""
    headers = ["#", "About", "What is printed or left open", "Default", "Option", "Where in code", "State"]
    rows = [
        [
            str(each.number),
            each.about,
            each.item,
            each.default,
            each.option or "-",
            ", ".join(f"`{where}`" for where in each.where),
            STATES[each.state],
        ]
        for each in errata()
    ]
    return render.markdown_plain(headers, rows)


def label_sets_table() -> str:
    """What the real label sets say where the paper's metrics depend on them, from the taxonomy's statistics."""
    path = resources.files("taxonomy_data") / "label_set_statistics.json"
    figures = json.loads(path.read_text(encoding="utf-8"))
    nodes, labels = figures["nodes_per_video"], figures["labels_per_video"]
    share = figures["positives_beyond_cap"] / (nodes["mean"] * figures["videos"])
    sentences = [
        f"{figures['videos']:,} label sets of the 2018 release, mapped by our label map and closed under ancestors: "
        f"{labels['mean']:.2f} labels per video (standard deviation {labels['sd']:.2f}, at most {labels['greatest']}) "
        f"become {nodes['mean']:.2f} nodes (standard deviation {nodes['sd']:.2f}, at most {nodes['greatest']}).",
        f"{figures['positives_beyond_cap']:,} positives ({share:.2%}) lie beyond a video's 20th; above 0.1 % the "
        "uncapped scores would have become the headline.",
    ]
    rows = [
        [
            str(level["level"]),
            str(level["nodes"]),
            f"{level['positives_per_video']:.2f}",
            f"{level['share_of_videos_with_a_positive']:.1%}",
            f"{level['least_support']:,}",
            f"{level['median_support']:,.0f}",
            f"{level['greatest_support']:,}",
        ]
        for level in figures["levels"]
    ]
    headers = ["Level", "Nodes", "Positives per video", "Videos with a positive", "Least support", "Median", "Greatest"]
    return "\n\n".join([" ".join(sentences), render.markdown_plain(headers, rows)])
