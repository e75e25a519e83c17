"""What a notebook shows of an error: what it says, and where in the notebook's own code."""

from __future__ import annotations

import pytest

from airside.stack.calling import explain_misuse
from airside.stack.errors import AirsideError, InternalError, LayerUnavailable
from airside.stack.ids import parse_run


@explain_misuse("ask", how="ask(what)")
def ask(what: str) -> str:
    """Take one argument."""
    return parse_run(what)


def raised(call: object) -> AirsideError:
    with pytest.raises(AirsideError) as caught:
        call()  # type: ignore[operator]
    return caught.value


@pytest.mark.parametrize("call", [lambda: ask("x"), lambda: ask(who="x")])
def test_where_airside_raised_an_error_is_not_shown(call: object) -> None:
    error = raised(call)
    shown = error._render_traceback_()
    assert shown[0].startswith("Traceback") and shown[-1] == f"{type(error).__name__}: {error}"
    assert len(shown) > 2 and not any(inner in line for line in shown for inner in ("calling.py", "ids.py")), shown


def test_of_a_broken_promise_of_ours_all_is_shown_and_of_others_why() -> None:
    def broken() -> None:
        try:
            parse_run("x")
        except AirsideError as error:
            raise InternalError("broken") from error

    error = raised(broken)
    assert error._render_traceback_()[-2:] == ["InternalError: broken", f"because of InvalidId: {error.__cause__}"]
    assert LayerUnavailable("away")._render_traceback_() == ["LayerUnavailable: away"]
