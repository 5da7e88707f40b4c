"""JSON: what cannot be read, or has another form, is a ValueError that says where."""

import re

import pytest

from nstlab.base import jsonfiles


@pytest.mark.parametrize("text", ["[" * 200_000, '{"a":' * 200_000, "{", "1" * 5000, b"\xff"])
def test_json_that_cannot_be_read_is_a_value_error(text):
    with pytest.raises(ValueError):  # noqa: PT011
        jsonfiles.parse(text)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ({"a": 1}, "it must contain ['b'] properties"),
        ({"a": True, "b": []}, "it.a must be number"),
        ({"a": 1, "b": ["x", 3]}, "it.b[1] must be string"),
        ({"a": float("inf"), "b": []}, "it.a must be smaller than"),
        ({"a": 10**400, "b": []}, "it.a must be smaller than"),
        ([], "it must be object"),
        ({"a": 1, "b": [], "n": 1.0}, "it.n must be integer"),
    ],
)
def test_json_of_another_form_is_a_value_error_that_says_where(data, says):
    schema = jsonfiles.object_with(
        {"n": jsonfiles.WHOLE}, a=jsonfiles.NUMBER, b=jsonfiles.list_of(jsonfiles.TEXT)
    )
    jsonfiles.check({"a": 1.5, "b": ["x"], "more": None}, schema)
    with pytest.raises(ValueError, match=re.escape(says)):
        jsonfiles.check(data, schema)
