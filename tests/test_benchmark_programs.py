"""Claims: docs/benchmarks.md has a row for every program under benchmarks/ and for nothing else, and says which of them
`make bench` runs."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")


def test_every_program_has_its_row():
    paths = (ROOT / "benchmarks").glob("*.py")
    programs = [path.stem for path in paths if '__name__ == "__main__"' in path.read_text(encoding="utf-8")]
    assert sorted(re.findall(r"^\| `(\w+)` \|.*\|.*\|$", PAGE, re.MULTILINE)) == sorted(programs)


def test_make_bench_runs_what_the_page_says():
    rule = re.search(r"^bench:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)[1]
    sentence = re.search(r"`make bench` runs ([^.]*)\.", PAGE)[1]
    assert re.findall(r"-m benchmarks\.(\w+)", rule) == re.findall(r"`(\w+)`", sentence)
