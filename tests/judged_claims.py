"""Claims judged again after a test changed the records, for tests of verdicts and of how they are printed."""

from replicate.record import read_json, write_json
from replicate.report.claims import judging
from replicate.schema import HEADLINE


def judged(folder):
    return {result.name: result for result in judging.judge(folder)}


def edit(folder, pattern, change):
    """Change records as plain values; `change(record)` works in place."""
    paths = list((folder / "records").glob(pattern))
    assert paths
    for path in paths:
        record = read_json(path)
        change(record)
        write_json(path, record)


def shift(folder, column, amount, metrics=HEADLINE, levels=("overall",)):
    """Move a column's scores on every draw."""

    def change(record):
        for cell in record["cells"]:
            if cell["metric"] in metrics and cell["level"] in levels:
                cell["draws"] = [value + amount for value in cell["draws"]]
                cell["mean"] += amount

    edit(folder, f"evaluate-{column}-*.json", change)
