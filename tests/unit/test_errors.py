"""Refusals: one table from code to class to HTTP status."""

from __future__ import annotations

import json
import pickle

import pytest

from tega import errors
from tega.errors import BY_CODE, TegaError

STATUS = {
    "malformed": 400,
    "not_found": 404,
    "no_such_version": 404,
    "no_such_transaction": 404,
    "no_such_function": 404,
    "no_such_command": 404,
    "no_peer": 404,
    "method_not_allowed": 405,
    "refused": 409,
    "collision": 409,
    "leaf_in_the_way": 409,
    "no_session": 409,
    "ephemeral_conflict": 409,
    "not_understood": 400,
    "unauthorized": 401,
    "forbidden": 403,
    "over_limit": 429,
    "call_failed": 502,
    "call_timeout": 504,
    "too_large": 413,
    "url_too_long": 414,
    "internal": 500,
    "owner_gone": 502,
    "unavailable": 503,
    "read_only": 503,
    "outcome_unknown": 503,
    "closed": 503,
}


def classes() -> list[type[TegaError]]:
    found = [c for c in vars(errors).values() if isinstance(c, type) and issubclass(c, TegaError)]
    return [c for c in found if c is not TegaError]


every_class = pytest.mark.parametrize("cls", classes())


@pytest.mark.parametrize(("code", "status"), STATUS.items())
def test_the_status_of_each_code(code: str, status: int) -> None:
    assert BY_CODE[code].status == status


@every_class
def test_each_class_has_a_code_of_its_own(cls: type[TegaError]) -> None:
    assert BY_CODE[cls.code] is cls


@every_class
def test_the_tree_in_the_docstring_has_each_class(cls: type[TegaError]) -> None:
    assert f"+-- {cls.__name__} " in (errors.__doc__ or "")


@every_class
def test_an_error_is_data(cls: type[TegaError]) -> None:
    error = cls("no 'x' at r.a: put it first", path="r.a", expected=3)
    assert str(error) == "no 'x' at r.a: put it first"
    assert json.loads(json.dumps(error.body())) == {
        "error": {
            "code": cls.code,
            "message": "no 'x' at r.a: put it first",
            "path": "r.a",
            "expected": 3,
        }
    }


@every_class
def test_an_error_can_be_pickled(cls: type[TegaError]) -> None:
    error = pickle.loads(pickle.dumps(cls("gone", path="r")))
    assert (type(error), error.message, error.details) == (cls, "gone", {"path": "r"})


@pytest.mark.parametrize(
    ("cls", "builtin"),
    [
        (errors.Malformed, ValueError),
        (errors.NotFound, KeyError),
        (errors.NoSuchVersion, KeyError),
        (errors.Collision, ValueError),
        (errors.ReadOnly, OSError),
        (errors.Corrupt, OSError),
    ],
)
def test_python_users_catch_what_they_know(
    cls: type[TegaError], builtin: type[Exception]
) -> None:
    with pytest.raises(builtin):
        raise cls("so it is")
