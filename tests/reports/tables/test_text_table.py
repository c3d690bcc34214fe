"""Tables of texts as Markdown and as comma-separated values."""

from __future__ import annotations

from perdure.reports.tables.text_table import Cell, Sheet, plain

SHEET = Sheet(
    ["name", "acc"], [[Cell("a|b\nc"), Cell("9.0", best=True)], plain(['"x", y', 1])], "lr", "Note."
)


def test_markdown() -> None:
    assert SHEET.markdown() == (
        '| name | acc |\n| :-- | --: |\n| a\\|b c | **9.0** |\n| "x", y | 1 |\n\nNote.\n'
    )


def test_comma_separated_values() -> None:
    assert SHEET.csv() == b'name,acc\n"a|b\nc",9.0\n"""x"", y",1\n'


def test_what_is_no_unicode_is_escaped() -> None:
    assert Sheet(["\udcff"], [], "l").csv() == b"\\udcff\n"
