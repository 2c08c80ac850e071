"""NAME=VALUE becomes a value of its kind."""

from __future__ import annotations

import argparse

import pytest

from tools.settings import setting


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("threshold=0.7", ("threshold", 0.7), id="number"),
        pytest.param("write_page=false", ("write_page", False), id="truth value"),
        pytest.param("series_uid=1.2.3", ("series_uid", "1.2.3"), id="not JSON"),
        pytest.param("name=a=b", ("name", "a=b"), id="another equals sign"),
        pytest.param("name=", ("name", ""), id="empty"),
    ],
)
def test_a_setting_is_json_or_else_text(text, expected):
    assert setting(text) == expected


@pytest.mark.parametrize("text", ["threshold", "=0.7"])
def test_a_setting_needs_a_name_and_a_value(text):
    with pytest.raises(argparse.ArgumentTypeError, match="must be NAME=VALUE"):
        setting(text)
