"""Tables of texts as Markdown and as comma-separated values."""

from __future__ import annotations

from perdure.reports.tables.text_table import Cell, TextTable

LINES = [[Cell("a|b\nc"), Cell("9.0", best=True)], [Cell('"x", y'), Cell("1")]]
TABLE = TextTable(["name", "acc"], LINES, "lr", "Note.")


def test_markdown() -> None:
    assert TABLE.markdown() == (
        '| name | acc |\n| :-- | --: |\n| a\\|b c | **9.0** |\n| "x", y | 1 |\n\nNote.\n'
    )


def test_comma_separated_values() -> None:
    assert TABLE.csv() == b'name,acc\na|b\\nc,9.0\n"""x"", y",1\n'


def test_what_is_no_unicode_is_escaped() -> None:
    assert TextTable(["\udcff"], [], "l").csv() == b"\\udcff\n"


def test_values_become_texts_none_of_which_is_the_best() -> None:
    table = TextTable.plain(["path", "seed"], [["a", 1]])
    assert table.rows == [[Cell("a"), Cell("1")]]
    assert table.align == "ll"
