"""The retail example: its sixteen operations, and changes that are made once under a key."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from examples.retail import operations
from examples.retail.operations import CHANGES, OPERATIONS, READS
from examples.retail.store import (
    BusinessError,
    JsonValue,
    Store,
    applied_keys,
    apply_once,
    build_base,
    open_run,
    state_hash,
)

DATA = Path(operations.__file__).parent / "data"
JOB_LINES = (DATA / "jobs.jsonl").read_text("utf-8").splitlines()
JOBS: list[dict[str, Any]] = [json.loads(line) for line in JOB_LINES]


@pytest.fixture(scope="module")
def base_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("retail") / "base.sqlite"
    build_base(DATA, path)
    return path


@pytest.fixture
def conn(base_file: Path, tmp_path: Path) -> Iterator[sqlite3.Connection]:
    with closing(open_run(base_file, tmp_path / "run.sqlite")) as opened:
        yield opened


def call(conn: sqlite3.Connection, key: str, tool: str, args: dict[str, Any]) -> JsonValue:
    if tool in READS:
        return OPERATIONS[tool](Store(conn), **args)
    return apply_once(conn, key, tool, lambda store: OPERATIONS[tool](store, **args))


def cancel(store: Store) -> JsonValue:
    return operations.cancel_pending_order(store, order_id="#W9000003", reason="no longer needed")


@pytest.mark.parametrize("job", JOBS, ids=[job["job_id"] for job in JOBS])
def test_replaying_a_job_gives_its_errors_and_its_final_state(conn: sqlite3.Connection, job: dict[str, Any]) -> None:
    refused, kept = [], []
    for index, action in enumerate(job["actions"]):
        try:
            call(conn, str(index), action["tool"], action["args"])
        except BusinessError:
            refused.append(index)
        else:
            kept += [str(index)] if action["tool"] in CHANGES else []
    assert refused == job["business_errors"]
    assert state_hash(conn) == job["final_state_sha256"]
    assert applied_keys(conn) == kept


def test_operations_schemas_and_jobs_name_the_same_sixteen_tools() -> None:
    schemas = json.loads((DATA / "tool_schemas.json").read_text("utf-8"))
    names = {schema["name"] for schema in schemas}
    assert len(names) == 16
    assert READS | CHANGES == set(OPERATIONS) == names
    assert not READS & CHANGES
    assert {action["tool"] for job in JOBS for action in job["actions"]} == names


def test_a_key_used_again_changes_nothing_and_gives_the_first_answer(conn: sqlite3.Connection) -> None:
    before = state_hash(conn)
    first = apply_once(conn, "key", "cancel_pending_order", cancel)
    after = state_hash(conn)
    again = apply_once(conn, "key", "cancel_pending_order", cancel)
    assert before != after == state_hash(conn)
    assert json.dumps(first) == json.dumps(again)
    assert applied_keys(conn) == ["key"]


def test_a_cancellation_puts_the_money_back_on_the_gift_card(conn: sqlite3.Connection) -> None:
    apply_once(conn, "key", "cancel_pending_order", cancel)
    user = Store(conn).get_user("tomas_lind_1002")
    assert user["payment_methods"]["gift_card_5500004"]["balance"] == 69.1


def test_a_business_error_after_a_write_leaves_no_trace_and_frees_the_key(conn: sqlite3.Connection) -> None:
    before = state_hash(conn)

    def write_then_refuse(store: Store) -> JsonValue:
        cancel(store)
        raise BusinessError("refused after all")

    with pytest.raises(BusinessError, match="refused after all"):
        apply_once(conn, "key", "cancel_pending_order", write_then_refuse)
    assert state_hash(conn) == before
    assert applied_keys(conn) == []
    apply_once(conn, "key", "cancel_pending_order", cancel)
    assert applied_keys(conn) == ["key"]


def test_a_run_opened_again_keeps_its_changes_and_another_run_does_not_see_them(
    base_file: Path, tmp_path: Path
) -> None:
    with closing(open_run(base_file, tmp_path / "a")) as conn:
        initial = state_hash(conn)
        apply_once(conn, "key", "cancel_pending_order", cancel)
        changed = state_hash(conn)
    with closing(open_run(base_file, tmp_path / "a")) as conn:
        assert (state_hash(conn), applied_keys(conn)) == (changed, ["key"])
    with closing(open_run(base_file, tmp_path / "b")) as conn:
        assert (state_hash(conn), applied_keys(conn)) == (initial, [])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


@pytest.mark.parametrize("number", [0.1 + 0.2, 1e-320, 123456789.12345679, 17, 17.0])
def test_amounts_survive_the_store_bit_by_bit(conn: sqlite3.Connection, number: float) -> None:
    store = Store(conn)
    store.put_product("x", {"price": number})
    assert repr(store.get_product("x")["price"]) == repr(number)


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("(31.45 - 24.1) * 2", 14.7),
        (" 1/3 ", 0.33),
        ("-(2 + .5)", -2.5),
        ("7 // 2", 3.0),
        ("2 ** 10", 1024.0),
        ("2 ** -1", 0.5),
    ],
)
def test_calculate_rounds_to_two_decimals(conn: sqlite3.Connection, expression: str, value: float) -> None:
    assert operations.calculate(Store(conn), expression=expression) == value


@pytest.mark.parametrize(
    "expression",
    [
        "__import__('os')",
        "1 + a",
        "1e9",
        "1\n",
        "",
        " ",
        "()",
        "...",
        "(1)(2)",
        "1 2",
        "01",
        "1 / 0",
        "0 ** -1",
        "(-8) ** .5",
        "9 ** 9 ** 9",
        "9 ** 9 ** 9 ** 9",
        "9. ** 999",
        "(10. ** 300) * (10. ** 300)",
        "(" * 150 + ")" * 150,
        "-" * 299 + "(",
        "1" * 301,
    ],
)
def test_calculate_refuses_what_has_no_value(conn: sqlite3.Connection, expression: str) -> None:
    with pytest.raises(BusinessError):
        operations.calculate(Store(conn), expression=expression)
