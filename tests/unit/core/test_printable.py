"""Text that is safe to print on a terminal: no control characters, one line."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ccr_deploy.core.printable import printable, reason_of


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
def test_hidden_characters_become_escapes(text, shown):
    assert printable(text) == shown


@pytest.mark.parametrize(
    "text", ["", "photo[copy].png", "naïve café", "猫\u3000犬", "–…±1.5 %", "C:\\x", "😀"]
)
def test_visible_characters_are_unchanged(text):
    assert printable(text) == text


@given(st.text())
def test_any_text_becomes_one_line_of_valid_utf_8(text):
    shown = printable(text)
    shown.encode()
    assert len(shown.splitlines()) <= 1
    assert printable(shown) == shown


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ValueError("first line\n  second"), "first line second"),
        (ValueError("x" * 400), "x" * 300),
        (MemoryError(), "MemoryError"),
    ],
)
def test_the_reason_of_an_error_is_one_line_that_is_never_empty(error, reason):
    assert reason_of(error) == reason
