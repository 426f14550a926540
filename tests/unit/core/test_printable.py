"""Texts that a terminal shows as they are: no name moves the cursor or passes for a line of its own."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ccr_deploy.core.printable import printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31mred\x1b[0m", "\\x1b[31mred\\x1b[0m"),
        ("\x9b31m", "\\x9b31m"),
        ("a\nb\r\tc\0", "a\\nb\\r\\tc\\x00"),
        ("\u202egnp.exe", "\\u202egnp.exe"),
        ("\u2028", "\\u2028"),
        ("\udcff.png", "\\udcff.png"),
        ("\x7f\x85", "\\x7f\\x85"),
    ],
)
def test_what_is_hidden_is_shown_as_its_escape(text, shown):
    assert printable(text) == shown


@pytest.mark.parametrize(
    "text", ["", "photo[copy].png", "naïve café", "猫\u3000犬", "–…±1.5 %", "C:\\x", "😀"]
)
def test_what_can_be_seen_stays(text):
    assert printable(text) == text


@given(st.text())
def test_every_text_becomes_one_line_that_any_utf_8_terminal_takes(text):
    shown = printable(text)
    shown.encode()
    assert len(shown.splitlines()) <= 1
    assert printable(shown) == shown
