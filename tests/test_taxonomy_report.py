"""Claims: Figure 7 shows the top three levels under Game with the committed counts, in reproducible bytes; the tree's
page holds every node and label once, escapes what it shows, asks for nothing, and its search finds what it should.

Oracles: counts over the committed CSV files by hand, Python's HTML parser, a browser where one is installed.
"""

import csv
import re
import shutil
import subprocess
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import matplotlib
import pytest
from patience import PATIENCE

from replicate.report.figures.style import RC
from replicate.report.figures.taxonomy import draw_game_taxonomy, make_figure_7
from replicate.report.pages.taxonomy import fragment, make_taxonomy_page, script
from replicate.taxonomy.tree import data_folder

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def committed(name: str) -> list[dict[str, str]]:
    return list(csv.DictReader((data_folder() / name).open(encoding="utf-8", newline="")))


def test_figure_7_is_the_top_three_levels_under_game(tmp_path):
    files = make_figure_7(tmp_path)
    assert [path.name for path in files] == ["figure7.svg", "figure7.png", "figure7.csv"]
    rows = {row["path"]: row for row in csv.DictReader(files[2].open(encoding="utf-8", newline=""))}
    paths = [row["path"] for row in committed("nodes.csv")]
    expected = {path for path in paths if f"{path}:".startswith("Game:") and path.count(":") <= 2}
    assert rows.keys() == expected
    placed = Counter(row["node"] for row in committed("label_map.csv"))
    positives = {row["path"]: row["positives"] for row in committed("statistics.csv")}
    for path, row in rows.items():
        assert int(row["labels"]) == sum(n for node, n in placed.items() if f"{node}:".startswith(f"{path}:"))
        assert int(row["nodes_below"]) == sum(other.startswith(f"{path}:") for other in paths)
        assert row["real_label_sets"] == positives[path] and int(row["level"]) == path.count(":")


def test_figure_7_names_every_node_and_overlaps_none():
    with matplotlib.rc_context(RC):
        drawing = draw_game_taxonomy()
        drawing.figure.canvas.draw()
    (axes,) = drawing.figure.axes
    names = [path.rpartition(":")[2] for path in drawing.data["path"]]
    texts = [text for text in axes.texts if text.get_text().split(" (")[0] in names]
    assert sorted(text.get_text().split(" (")[0] for text in texts) == sorted(names)
    boxes = [text.get_window_extent() for text in axes.texts]
    page = drawing.figure.bbox
    for number, box in enumerate(boxes):
        assert page.x0 <= box.x0 and box.x1 <= page.x1 and page.y0 <= box.y0 and box.y1 <= page.y1
        assert not any(box.overlaps(other) for other in boxes[number + 1 :])


def test_figure_7_has_the_same_bytes_twice(tmp_path):
    once = [path.read_bytes() for path in make_figure_7(tmp_path / "once")]
    assert once == [path.read_bytes() for path in make_figure_7(tmp_path / "twice")]
    assert b"<dc:date>" not in once[0]


class Tree(HTMLParser):
    """Collects the nesting of <details>, labels and tags."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.stack: list[str] = []
        self.paths: list[str] = []
        self.labels: list[tuple[str, int]] = []
        self._capture: str | None = None
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags[tag] += 1
        self._capture = {"summary": "node", "small": self._capture}.get(tag)
        if tag == "small":
            self._capture = "index"
        assert not {name for name, _ in attributes} & {"src", "href", "onclick", "action", "style"}

    def handle_endtag(self, tag):
        if tag == "details":
            self.stack.pop()

    def handle_data(self, data):
        if self._capture == "node":
            self.stack.append(data.strip())
            self.paths.append(":".join(self.stack))
        elif self._capture == "index" and data.strip().isdigit():
            self.labels.append((self.paths[-1], int(data)))
        self._capture = None


def test_the_page_holds_every_node_and_label_once():
    tree = Tree(fragment())
    assert sorted(tree.paths) == sorted(row["path"] for row in committed("nodes.csv"))
    mapped = [(row["node"], int(row["label_index"])) for row in committed("label_map.csv")]
    assert sorted(tree.labels) == sorted(mapped)
    assert not tree.tags.keys() & {"script", "link", "img", "iframe"}


def test_counts_of_a_top_are_those_of_the_files():
    labels = sum(row["node"].split(":")[0] == "Beauty" for row in committed("label_map.csv"))
    positives = next(int(row["positives"]) for row in committed("statistics.csv") if row["path"] == "Beauty")
    assert f"Beauty <small>{labels} labels, {positives:,} sets</small>" in fragment()


def test_the_page_escapes_what_it_shows(tmp_path):
    copy = Path(shutil.copytree(data_folder(), tmp_path / "taxonomy", ignore=shutil.ignore_patterns("*.py*")))
    for name, old, new in (
        ("nodes.csv", "Beauty in general", "<script>alert(1)</script>"),
        ("label_map.csv", "3861,Gamblerz", "3861,<img src=x>"),
    ):
        text = (copy / name).read_text(encoding="utf-8")
        assert old in text
        (copy / name).write_text(text.replace(old, new), encoding="utf-8")
    page = fragment(copy)
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page and "&lt;img src=x&gt;" in page
    assert "<script" not in page and "<img" not in page


def test_the_page_stands_alone(tmp_path):
    text = make_taxonomy_page(tmp_path / "taxonomy.html").read_text(encoding="utf-8")
    assert "default-src 'none'" in text and "sha256-" in text and script() in text
    assert not re.search(r"https?://", text)


@pytest.mark.skipif(BROWSER is None, reason="no browser is installed")
@pytest.mark.parametrize(
    ("word", "shown", "output"),
    [
        (
            "pianist",
            {"Music", "MusicInstrument", "Keyboard", "Piano", "Musician"},
            "found: 2 in categories, 1 in labels",
        ),
        ("steirische harmonika", {"Music", "MusicInstrument", "FreeReed", "Accordion"}, "found: 1 in categories"),
        ("no such thing", set(), "found: 0 in categories, 0 in labels"),
    ],
)
def test_search_shows_matches_and_the_way_to_them(tmp_path, word, shown, output):
    text = make_taxonomy_page(tmp_path / "taxonomy.html").read_text(encoding="utf-8")
    text = re.sub(r"<meta http-equiv[^>]*>", "", text)  # the policy would forbid this test's own script
    drive = f"""<script>{{
      const field = document.getElementById("taxonomy-word");
      field.value = {word!r};
      field.dispatchEvent(new Event("input", {{ bubbles: true }}));
      const open = [...document.querySelectorAll(".tree details")].filter((each) => each.checkVisibility());
      document.title = open.map((each) => each.querySelector("summary").firstChild.textContent.trim()).join("|")
        + "||" + document.querySelector("output").value;
    }}</script></body>"""
    page = tmp_path / "driven.html"
    page.write_text(text.replace("</body>", drive), encoding="utf-8")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--dump-dom"]
    command = [BROWSER, *flags, f"--user-data-dir={tmp_path / 'profile'}"]
    done = subprocess.run([*command, page.as_uri()], capture_output=True, text=True, timeout=PATIENCE)
    names, _, value = re.search(r"<title>(.*?)</title>", done.stdout).group(1).partition("||")
    assert set(filter(None, names.split("|"))) == shown and output in value
