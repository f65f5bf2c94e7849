"""The files of Tables 1 and 2."""

from pathlib import Path

from replicate.record import write_text
from replicate.report import table_text
from replicate.report.records import Records
from replicate.report.table_rows import table1, table2


def make_tables(folder: Path) -> list[Path]:
    """Write `folder`/tables/*.{md,csv,tex} from `folder`/records; the files written.

    Raises:
        MissingResult: a record that every run has is missing.
    """
    records = Records.open(folder)
    first, second = table1(records), table2(records)
    texts = {
        "table1.md": table_text.markdown1(records, first),
        "table1_detail.md": table_text.detail1(records, first),
        "table1.csv": table_text.csv1(first),
        "table1.tex": table_text.latex1(records, first),
        "table2.md": table_text.markdown2(records, second),
        "table2.csv": table_text.csv2(second),
        "table2.tex": table_text.latex2(records, second),
    }
    for name, text in texts.items():
        write_text(Path(folder) / "tables" / name, text)
    return [Path(folder) / "tables" / name for name in texts]
