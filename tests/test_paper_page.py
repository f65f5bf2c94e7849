"""Claims: PAPER.md and README.md are complete, point at code that exists, and their generated parts are current."""

import ast
import json
import re
from pathlib import Path

import pytest
from record_fixtures import write_fixture

from replicate.errors import ConfigurationError
from replicate.profile_files import load_profile
from replicate.report.claims.judging import judge, registry
from replicate.report.pages import paper, parts
from replicate.stages import flatten

ROOT = Path(__file__).resolve().parent.parent
PAPER = (ROOT / "PAPER.md").read_text(encoding="utf-8")
PLACES = sorted(set(re.findall(r"`((?:tc|baselines|replicate|taxonomy_data)/[\w./-]+(?:::\w+)?)`", PAPER)))


def test_pages_are_current():
    for path, text in parts.current_pages(ROOT, ROOT / "results").items():
        assert path.read_text(encoding="utf-8") == text, f"{path.name}: run `replicate claims --update`"


@pytest.mark.parametrize("place", PLACES)
def test_code_that_the_page_names_exists(place):
    path, _, name = place.partition("::")
    assert (ROOT / path).exists(), path
    if name:
        tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
        named = {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
        named |= {
            t.id for node in tree.body if isinstance(node, ast.Assign) for t in node.targets if isinstance(t, ast.Name)
        }
        assert name in named, place


def test_the_check_of_places_covers_the_page():
    assert len(PLACES) > 60


def test_all_46_errata_are_there_with_a_known_state():
    errata = paper.errata()
    assert [each.number for each in errata] == list(range(1, 47))
    for each in errata:
        assert each.item and each.default and each.where, each.number
        assert each.state in paper.STATES, each.number
        assert each.option or each.state != "option", each.number
        assert f"| {each.number} | {each.about} |" in PAPER


def test_options_that_the_page_names_are_fields_of_a_profile():
    fields = {name for name, _ in flatten(load_profile("paper"))}
    named = set(re.findall(r"`((?:coherence|model|training|ensemble|split|tuning)\.\w+)", PAPER))
    assert len(named) > 20
    assert named <= fields


def test_every_equation_table_and_figure_has_a_row():
    for number in range(1, 9):
        assert re.search(rf"^\| {number} \| .* \| `", PAPER, re.MULTILINE), f"Eq. {number}"
    for words in (
        "Table 1",
        "Table 2",
        "Figures 1, 2, 3",
        "Figures 4, 5",
        "Figure 6",
        "Figure 7",
        "Figure 8",
        "Figure 9",
        "Figure 10",
    ):
        assert f"| {words} |" in PAPER, words
    for unnumbered in (
        "assignment",
        "attention",
        "alpha_i = alpha_j",
        "Attention(Q, K, V)",
        "Attention(E, H)",
        "d_ij",
        "d'_ij",
    ):
        assert f", {unnumbered} |" in PAPER, unnumbered


def test_every_claim_of_the_registry_has_a_row_and_its_file():
    for claim in registry():
        assert f"| {claim.text} | {claim.section} |" in PAPER, claim.name
        assert (ROOT / paper.place(claim)).is_file()


def test_numbers_of_the_label_sets_come_from_their_file():
    figures = json.loads((ROOT / "taxonomy_data" / "label_set_statistics.json").read_text(encoding="utf-8"))
    assert f"{figures['videos']:,} label sets" in PAPER
    assert f"become {figures['nodes_per_video']['mean']:.2f} nodes" in PAPER.replace("\n", " ")
    for level in figures["levels"]:
        row = f"| {level['level']} | {level['nodes']} | {level['positives_per_video']:.2f} |"
        assert row in PAPER
    assert f"{figures['positives_beyond_cap']:,} positives" in PAPER


def test_every_profile_says_what_can_be_concluded():
    for profile in (ROOT / "replicate" / "profiles").glob("*.toml"):
        assert f"`{profile.stem}`" in PAPER, profile.stem


def checkout(tmp_path):
    for name in ("README.md", "PAPER.md"):
        (tmp_path / name).write_text((ROOT / name).read_text(encoding="utf-8"), encoding="utf-8")
    return tmp_path


def test_published_runs_give_columns_of_verdicts_and_cards(tmp_path):
    root = checkout(tmp_path)
    folder = write_fixture(root / "results" / "smoke")
    write_fixture(root / "results" / "audioset", data="real", columns=("rnn_attn", "tc_rnn"))
    assert {path.name for path in parts.update_pages(root, root / "results")} == {"README.md", "PAPER.md"}
    assert parts.update_pages(root, root / "results") == []
    paper, readme = ((root / name).read_text(encoding="utf-8") for name in ("PAPER.md", "README.md"))
    assert "| Where in code | audioset: real data | smoke: synthetic data |" in paper
    results = {result.name: result for result in judge(folder)}
    row = next(line for line in paper.splitlines() if line.startswith("| NetVLAD gains more"))
    assert row.endswith(f"| not testable here | {results['netvlad-gains-most'].verdict} |")
    assert readme.index("### Real data: audioset") < readme.index("### Synthetic data: smoke")
    outside = re.sub(r"<!-- results -->.*<!-- /results -->", "", readme, flags=re.DOTALL)
    assert outside == re.sub(
        r"<!-- results -->.*<!-- /results -->", "", (ROOT / "README.md").read_text(encoding="utf-8"), flags=re.DOTALL
    )


@pytest.mark.parametrize(
    "text", ["no comments", "<!-- x -->", "<!-- /x --> <!-- x -->", "<!-- x --><!-- /x --><!-- x --><!-- /x -->"]
)
def test_a_page_without_its_comments_is_refused(text):
    with pytest.raises(ConfigurationError, match="once each"):
        parts.replace_part(text, "x", "new")


def test_a_part_is_replaced_and_the_rest_kept():
    before = "a\n<!-- x -->\nold\n<!-- /x -->\nb\n"
    assert parts.replace_part(before, "x", "new\n") == "a\n<!-- x -->\nnew\n<!-- /x -->\nb\n"


@pytest.mark.parametrize("given", ["results/smoke", "elsewhere"])
def test_pages_are_left_alone_where_nothing_is_published(given, tmp_path):
    """One profile's folder, which other verbs take, or a misspelt one."""
    root = checkout(tmp_path)
    write_fixture(root / "results" / "smoke")
    with pytest.raises(ConfigurationError, match="holds no profile's published results; name the folder above"):
        parts.update_pages(root, root / given)
    for name in ("README.md", "PAPER.md"):
        assert (root / name).read_text(encoding="utf-8") == (ROOT / name).read_text(encoding="utf-8")


def test_a_missing_page_is_named(tmp_path):
    write_fixture(tmp_path / "results" / "smoke")
    with pytest.raises(ConfigurationError, match=r"README\.md is missing"):
        parts.update_pages(tmp_path, tmp_path / "results")


def test_the_citation_names_the_paper():
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert "title: Exploiting Temporal Coherence for Multi-modal Video Categorization" in citation
    for name in ("Goyal", "Sahu", "Ghosh", "Lee"):
        assert f"family-names: {name}" in citation
