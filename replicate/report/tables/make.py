"""The files of Tables 1 and 2."""

from pathlib import Path

from replicate.record import write_text
from replicate.report.records import Records
from replicate.report.tables import text
from replicate.report.tables.rows import table1, table2


def make_tables(folder: Path) -> list[Path]:
    """Write `folder`/tables/*.{md,csv,tex} from `folder`/records; the files written.

    Raises:
        MissingResult: a record that every run has is missing.
    """
    records = Records.open(folder)
    first, second = table1(records), table2(records)
    files = {
        "table1.md": text.markdown1(records, first),
        "table1_detail.md": text.detail1(records, first),
        "table1.csv": text.csv1(first),
        "table1.tex": text.latex1(records, first),
        "table2.md": text.markdown2(records, second),
        "table2.csv": text.csv2(second),
        "table2.tex": text.latex2(records, second),
    }
    for name, content in files.items():
        write_text(Path(folder) / "tables" / name, content)
    return [Path(folder) / "tables" / name for name in files]
