"""Claims: the report is one whole, escaped file that asks for nothing, shows the records' numbers, and labels them."""

import base64
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path

import pytest
from record_fixtures import ALL, write_fixture
from report_runs import complete_run

from replicate.errors import MissingResult
from replicate.record import read_json, write_json
from replicate.report.pages import html
from replicate.report.pages.html import make_report
from replicate.report.pages.text import plain, rich
from replicate.report.records import Records
from replicate.report.render import with_sign
from replicate.schema import HEADLINE, write_record
from replicate.studies.schema import AblateRecord, AblateRow, Arm, OverallDifference

VOID = {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"}
HOSTILE = (
    "<script>document.title = 'hacked'</script>",
    "\"'><img src=x onerror=alert(1)>",
    "{{ 7 * 7 }}{% raw %}",
    "</style></svg></table>&lt;b&gt;",
    "--><!-- ]]> $x_1$",
)


@dataclass
class Element:
    """An element with its text; children are in the order of the page."""

    tag: str
    attributes: dict[str, str | None]
    children: list["Element"] = field(default_factory=list)
    text: str = ""

    def walk(self):
        yield self
        for child in self.children:
            yield from child.walk()

    def find(self, tag: str, **attributes: str) -> list["Element"]:
        wanted = {name.replace("_", "-"): value for name, value in attributes.items()}
        return [e for e in self.walk() if e.tag == tag and wanted.items() <= e.attributes.items()]


class Strict(HTMLParser):
    """Builds the tree of a page, and refuses an end tag that does not close what is open."""

    def __init__(self, text: str):
        super().__init__()
        self.root = Element("", {})
        self.open = [self.root]
        self.feed(text)
        self.close()
        assert self.open == [self.root], f"never closed: {[e.tag for e in self.open[1:]]}"

    def handle_starttag(self, tag, attrs):
        assert len(dict(attrs)) == len(attrs), f"<{tag}> has an attribute twice: {attrs}"
        element = Element(tag, dict(attrs))
        self.open[-1].children.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_startendtag(self, tag, attrs):
        self.open[-1].children.append(Element(tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open[-1].tag == tag, f"</{tag}> closes <{self.open[-1].tag}>"
        self.open.pop()

    def handle_data(self, data):
        for element in self.open:
            element.text += data


def tree(folder: Path) -> Element:
    return Strict(make_report(folder).read_text(encoding="utf-8")).root


@pytest.fixture
def undrawn(monkeypatch) -> None:
    """Pages without figures, for tests that look at other parts."""
    monkeypatch.setattr(html, "figure_views", lambda _: [])


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return complete_run(tmp_path_factory)


@pytest.fixture(scope="module")
def page(folder) -> Element:
    return tree(folder)


@pytest.fixture(scope="module")
def several(tmp_path_factory) -> tuple[Element, Records]:
    """The page of a run on real data with three training seeds, and its records."""
    folder = complete_run(tmp_path_factory, "real", (0, 1, 2))
    return tree(folder), Records.open(folder)


def test_the_page_asks_for_nothing(page):
    for element in page.walk():
        for name, value in element.attributes.items():
            assert not name.startswith("on"), f"<{element.tag} {name}>"
            if name in ("src", "href", "xlink:href", "action", "srcset", "poster", "data"):
                assert value.startswith(("#", "data:")), f"<{element.tag} {name}={value[:60]}>"
            assert not re.search(r"url\((?!#)", value or ""), f"<{element.tag} {name}={value[:60]}>"
    assert not {"iframe", "object", "embed", "base"} & {element.tag for element in page.walk()}
    style = page.find("style")[0].text
    assert "@import" not in style and "url(" not in style


def test_the_policy_allows_no_request_and_one_script(page):
    (policy,) = page.find("meta", http_equiv="Content-Security-Policy")
    rules = dict(rule.split(maxsplit=1) for rule in policy.attributes["content"].split("; "))
    (script,) = page.find("script")
    seal = base64.b64encode(hashlib.sha256(script.text.encode()).digest()).decode()
    assert rules["default-src"] == "'none'" and rules["script-src"] == f"'sha256-{seal}'"
    assert "connect-src" not in rules and rules["img-src"] == "data:"


def test_ids_are_unique_and_every_reference_has_its_target(page):
    ids = [element.attributes["id"] for element in page.walk() if "id" in element.attributes]
    assert len(ids) == len(set(ids))
    for element in page.walk():
        references = [
            *(v[1:] for n, v in element.attributes.items() if n in ("href", "xlink:href") and v.startswith("#")),
            *(element.attributes.get("aria-labelledby") or "").split(),
            *filter(None, [element.attributes.get("data-controls"), element.attributes.get("for")]),
            *re.findall(r"url\(#([^)]*)\)", " ".join(v or "" for v in element.attributes.values())),
        ]
        for reference in references:
            assert reference in ids, f"<{element.tag}> refers to {reference}"


def test_the_page_can_be_used_from_the_keyboard(page):
    assert page.find("html")[0].attributes["lang"] == "en"
    assert page.children[0].children[1].children[0].attributes == {"class": "skip", "href": "#main"}
    for form in page.find("form", **{"class": "controls"}):
        for choice in form.find("fieldset"):
            assert len(choice.find("legend")) == 1
            assert sum("checked" in radio.attributes for radio in choice.find("input", type="radio")) == 1
    labelled = {label.attributes["for"] for label in page.find("label") if "for" in label.attributes}
    assert {field.attributes["id"] for field in page.find("input", type="search")} <= labelled
    for region in page.find("div", **{"class": "scroll"}):
        assert region.attributes["tabindex"] == "0" and {"aria-label", "aria-labelledby"} & set(region.attributes)
    for svg in page.find("svg"):
        assert svg.attributes["role"] == "img" and svg.attributes["aria-labelledby"].endswith("-caption")


def test_headers_of_synthetic_data_say_so(page, several):
    exempt = {"errata", "taxonomy"}  # the paper's errors and the tree are no results
    for header in page.find("h2"):
        assert ("synthetic data" in header.text) == (header.attributes["id"] not in exempt), header.text
    for section in page.find("main")[0].children:
        for caption in section.find("caption"):
            assert "synthetic data" in caption.text or section.attributes["aria-labelledby"] == "provenance"
    assert "synthetic data" in page.find("h1")[0].text
    real, _ = several
    assert not real.find("span", **{"class": "synthetic"})


def test_one_seed_is_called_conditional_and_several_are_not(page, several):
    words = "Conditional on one trained model per column"
    assert words in page.find("header")[0].text and words in page.find("section", aria_labelledby="verdicts")[0].text
    assert words not in several[0].text


def cell(page: Element, metric: str, column: str, level: str) -> dict[str, str]:
    """The texts of one cell of Table 1, by what they show."""
    (block,) = [e for e in page.find("div", data_metric=metric) if e.find("table")]
    (row,) = [row for row in block.find("tr") if row.find("th", scope="row") and row.find("th")[0].text == column]
    (found,) = row.find("td", data_level=level)
    return {e.attributes["data-value"]: " ".join(e.text.split()) for e in found.find("div")}


def test_table_1_shows_the_records(page, folder, several):
    records = Records.open(folder)
    shown = cell(page, "MAP", "TC-NetV", "2")
    ours, gain = records.cell("tc_netv", 0, "MAP", "2"), records.difference("tc_netv", "MAP", "2")
    paper, paper_gain = 90.0, 1.7  # Table 1 of the paper
    assert shown["ours"] == f"ours {100 * ours.mean:.1f} (+{100 * gain.difference:.1f}) ±{100 * ours.sd:.2f}"
    assert shown["paper"] == f"paper {paper} (+{paper_gain})"
    against, more = 100 * ours.mean - paper, 100 * gain.difference - paper_gain
    assert shown["difference"].replace("−", "-") == f"ours - paper {with_sign(against, 1)} ({with_sign(more, 1)})"
    low, high = (with_sign(100 * bound, 1) for bound in gain.interval)
    assert shown["increment"] == f"increment +{100 * gain.difference:.1f} [{low}, {high}]"
    assert cell(page, "GAP", "TC-Ens", "1")["paper"].endswith("[a])")  # a misprint, footnoted
    assert cell(page, "MAP@20", "TC-NetV", "2")["paper"] == "paper –"
    real, records = several
    means = [records.cell("rnn", seed, "GAP", "3").mean for seed in (0, 1, 2)]
    assert cell(real, "GAP", "RNN", "3")["ours"].startswith(f"ours {100 * sum(means) / 3:.1f} ")


def test_an_undefined_level_is_blank_with_its_reason(tmp_path, undrawn):
    page = tree(write_fixture(tmp_path, without_level="3"))
    assert cell(page, "GAP", "TC-RNN", "3")["ours"] == "ours –"
    (block,) = [e for e in page.find("div", data_metric="GAP") if e.find("table")]
    assert block.find("td", data_level="3")[0].attributes["title"] == "no video of the pool has a positive at level 3"


def test_every_difference_claim_and_erratum_is_there(page, folder):
    assert len(page.find("table", id="differences")[0].find("tr")) - 1 == len(Records.open(folder).compare.differences)
    errata = page.find("ol", id="errata-list")[0].children
    assert [item.attributes["value"] for item in errata] == [str(number) for number in range(1, 47)]
    claims = page.find("ol", id="claim-list")[0].children
    for item in claims:
        assert item.attributes["data-verdict"] in item.text
    linked = {a.attributes["href"] for a in page.find("section", aria_labelledby="verdicts")[0].find("a")}
    assert linked <= {f"#{item.attributes['id']}" for item in claims} and len(linked) > 30


def test_figures_are_drawn_or_their_absence_is_explained(folder, page):
    index = read_json(folder / "figures" / "figures.json")["figures"]
    for entry in index:
        if entry["skipped"]:
            reason = entry["skipped"].replace("`", "")  # set as code
            assert f"{entry['title']}: {reason}." in page.find("section", aria_labelledby="figures")[0].text
            continue
        (figure,) = page.find("figure", id=entry["name"])
        assert figure.find("svg") or entry["name"] == "figure9"
        (link,) = [a for a in figure.find("a") if "download" in a.attributes]
        numbers = base64.b64decode(link.attributes["href"].partition("base64,")[2])
        assert numbers == (folder / "figures" / f"{entry['name']}.csv").read_bytes()


def test_ablations_are_a_table(page, tmp_path, undrawn):
    assert not page.find("section", aria_labelledby="ablations")
    folder = write_fixture(tmp_path)
    write_record(folder / "records" / "ablate-tc_rnn.json", ablate_record())
    (section,) = tree(folder).find("section", aria_labelledby="ablations")
    (table,) = section.find("table")
    cells = [[cell.text for cell in row.children] for row in table.find("tbody")[0].children]
    assert cells == [
        ["ours *", "42.0", "41.5", *["+0.50 [+0.20, +0.80]"] * 4],
        ["impossible", "not possible here: kernels longer than videos"],
    ]
    assert "ours *: coherence.maps = 1" in section.text and "what it tells (erratum 8)" in section.text


def test_provenance_shows_the_run_record(page, folder):
    run = Records.open(folder).run
    text = page.find("section", aria_labelledby="provenance")[0].text
    for name, value in run.configuration.items():
        assert name in text and plain(value) in text
    values = (run.code["commit"], run.machine["processor"], run.shards[0]["sha256"], *run.keys, " ".join(run.command))
    assert all(value in text for value in values)


@pytest.mark.parametrize("columns", [("dnn",), ("rnn", "rnn_attn", "tc_rnn", "dnn"), ("base_ens", "tc_ens")])
def test_any_subset_of_columns_gives_a_whole_page(tmp_path, undrawn, columns):
    page = tree(write_fixture(tmp_path, columns=columns))
    assert len(page.find("div", data_metric="GAP")[0].find("tbody")[0].children) == len(columns)


def ablate_record() -> AblateRecord:
    """Two rows: one that ran, one that could not."""
    differences = tuple(
        OverallDifference(metric=metric, difference=0.005, interval=(0.002, 0.008), p=0.01) for metric in HEADLINE
    )
    arm = Arm(
        scores=dict.fromkeys(HEADLINE, 0.42), baseline_scores=dict.fromkeys(HEADLINE, 0.415), differences=differences,
        tune_gap=(0.5,), status=("finished",), baseline_status=("finished",), parameters=24,
    )  # fmt: skip
    row = {"key": "a", "about": "what it tells (erratum 8)", "assignments": ("coherence.maps=1",)}
    return AblateRecord(
        profile="smoke", title="smoke", data="synthetic", column="tc_rnn", baseline="rnn_attn", seeds=(0,),
        configuration={"coherence.maps": 4}, rows=(
            AblateRow(title="ours", both=True, arm=arm, **row),
            AblateRow(title="impossible", both=False, arm=None, reason="kernels longer than videos", **row),
        ),
    )  # fmt: skip


def hostile_fixture(folder: Path) -> Path:
    """A run whose every free text attacks the page."""
    write_fixture(folder)
    records = folder / "records"
    run = read_json(records / "run.json")
    run["title"], run["profile"] = HOSTILE[0], HOSTILE[1]
    run["node_names"][:5] = HOSTILE
    run["shards"][0]["name"] = HOSTILE[1]
    run["command"] = list(HOSTILE)
    run["configuration"][HOSTILE[2]] = HOSTILE[3]
    run["machine"]["processor"] = HOSTILE[1]
    run["packages"][HOSTILE[0]] = HOSTILE[4]
    write_json(records / "run.json", run)
    compare = read_json(records / "compare.json")
    compare["examples"][0] |= {"video": HOSTILE[1], "truth": list(HOSTILE)}
    compare["examples"][0]["coherent"] = [{"node": text, "probability": 0.5} for text in HOSTILE]
    write_json(records / "compare.json", compare)
    for column in ("rnn_attn", "tc_rnn"):
        explained = read_json(records / f"explain-{column}-0.json")
        for sample, text in zip(explained["attention"]["samples"], HOSTILE, strict=False):
            sample["id"] = text
        write_json(records / f"explain-{column}-0.json", explained)
    return folder


def test_hostile_texts_stay_texts(tmp_path):
    page = tree(hostile_fixture(tmp_path / "run"))
    assert len(page.find("script")) == 1 and not page.find("img") and len(page.find("style")) == 1
    for text in HOSTILE:
        assert text in page.text
    assert not any(name.startswith("on") for element in page.walk() for name in element.attributes)


def test_values_are_words():
    assert [plain(value) for value in (None, True, False, [], [1, [2, 3]], "x", 0.5)] == [
        "none", "yes", "no", "none", "1, 2, 3", "x", "0.5"
    ]  # fmt: skip


def test_rich_text_is_escaped_before_it_is_marked_up():
    assert rich("<b> `a<b` (errata 3, 28 and 31)") == (
        '&lt;b&gt; <code>a&lt;b</code> (errata <a href="#erratum-3">3</a>, <a href="#erratum-28">28</a> and '
        '<a href="#erratum-31">31</a>)'
    )


def test_equal_records_give_equal_bytes_in_another_process(folder, page, tmp_path):
    again = write_fixture(tmp_path / "smoke")
    shutil.copytree(folder / "figures", again / "figures")
    command = f"from replicate.report.pages.html import make_report; make_report({str(again)!r})"
    environment = os.environ | {"PYTHONHASHSEED": "4711", "TZ": "Asia/Tokyo"}
    subprocess.run([sys.executable, "-c", command], check=True, env=environment)
    assert (again / "report.html").read_bytes() == (folder / "report.html").read_bytes()


def test_figures_of_other_records_are_made_anew(tmp_path):
    folder = write_fixture(tmp_path, columns=("dnn",))
    before = tree(folder).find("figure", id="learning_curves")[0].find("a")[-1].attributes["href"]
    path = folder / "records" / "train-dnn-0.json"
    record = json.loads(path.read_text())
    record["history"][0]["tune_gap"] = 0.123
    write_json(path, record)
    assert tree(folder).find("figure", id="learning_curves")[0].find("a")[-1].attributes["href"] != before


def test_a_folder_without_records_gets_a_sentence_and_no_page(tmp_path):
    with pytest.raises(MissingResult, match="run.json is missing; run the command that makes it"):
        make_report(tmp_path)
    assert not list(tmp_path.rglob("report.html"))


def test_the_report_needs_no_torch():
    heavy = {"torch", "tensorflow", "distributed"}
    command = f"import sys, replicate.report.pages.html; print(*{heavy} & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", command], check=True, capture_output=True, text=True)
    assert found.stdout.strip() == ""


def test_every_column_has_a_row(page):
    assert len(page.find("div", data_metric="PERR")[0].find("tbody")[0].children) == len(ALL)
