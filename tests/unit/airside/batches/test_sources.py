"""Jobs are read from many kinds of input: the same rows each time, and a bad one harms no other."""

from __future__ import annotations

import csv
import datetime as dt
import gzip
import io
import itertools
import json
import os
import sys
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import fs

from airside.actors.jobs import MAX_LINE_BYTES, Job, parse_job
from airside.batches import places, sources
from airside.batches.rows import MAX_ORIGINAL_BYTES, Row, Source
from airside.batches.sources import open_source
from airside.stack.errors import InvalidInput

JOB = {"request": "r", "tenant": "acme", "principal": "ana"}


def jobs(source: Source) -> list[dict[str, Any]]:
    """Return what each row is, none of which has a problem."""
    rows = list(source.rows())
    assert [row.problem for row in rows] == [""] * len(rows)
    assert [row.number for row in rows] == list(range(len(rows)))
    assert list(source.rows()) == rows, "each call gives the same"
    return [json.loads(row.data) for row in rows]


def write_lines(path: Path, *given: object) -> Path:
    """Write JSON lines; text goes as it is."""
    path.write_text("".join(f"{each if isinstance(each, str) else json.dumps(each)}\n" for each in given))
    return path


def problems(source: Source) -> list[str]:
    """Return what is wrong with each row."""
    return [row.problem for row in source.rows()]


def broken_off(source: Source) -> tuple[list[Row], str]:
    """Return the rows there are before an error, and what that says."""
    read: list[Row] = []
    with pytest.raises(InvalidInput) as caught:  # noqa: PT012
        for row in source.rows():
            read.append(row)
    return read, str(caught.value)


# JSON lines


def test_json_lines_are_taken_as_they_are_and_say_where_they_stand(tmp_path: Path) -> None:
    """Behind a BOM, between empty lines, without a last newline."""
    line = json.dumps(JOB).encode()
    (tmp_path / "jobs.jsonl").write_bytes(b"\xef\xbb\xbf" + line + b"\r\n\n  " + line + b"\n[1]\n{\n" + line)
    rows = list(open_source(tmp_path / "jobs.jsonl").rows())
    assert [row.place for row in rows] == [f"jobs.jsonl:{at}" for at in (1, 3, 4, 5, 6)]
    assert [row.data for row in rows] == [line, line, b"", b"", line]
    assert "an object, not list" in rows[2].problem and "no JSON" in rows[3].problem
    assert rows[2].original == b"[1]"


def test_a_line_over_the_bound_is_a_bad_row_that_is_never_in_memory(tmp_path: Path) -> None:
    path = tmp_path / "jobs.jsonl"
    with path.open("wb") as file:
        file.write(json.dumps(JOB).encode() + b"\n")
        for _ in range(40):
            file.write(b"x" * MAX_LINE_BYTES)
        file.write(b"\n" + json.dumps(JOB).encode() + b"\n")
    source = open_source(path)
    tracemalloc.start()
    rows = list(source.rows())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [bool(row.problem) for row in rows] == [False, True, False] and rows[2].place == "jobs.jsonl:3"
    assert len(rows[1].original) == MAX_ORIGINAL_BYTES and peak < 12 * MAX_LINE_BYTES


def test_utf_16_is_said_to_be_what_it_is(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("{}", encoding="utf-16")
    with pytest.raises(InvalidInput, match=r"a\.jsonl: .*UTF-16"):
        list(open_source(tmp_path / "a.jsonl").rows())


# Packed, cut and damaged files


def test_gzip_is_unpacked_in_all_its_members(tmp_path: Path) -> None:
    line = json.dumps(JOB).encode() + b"\n"
    (tmp_path / "jobs.jsonl.gz").write_bytes(gzip.compress(line * 9000) + gzip.compress(line) + b"\0" * 100)
    assert jobs(open_source(str(tmp_path / "jobs.jsonl.gz"))) == [JOB] * 9001


def test_of_a_cut_file_what_can_be_read_is_read_and_then_it_says_where(tmp_path: Path) -> None:
    """Cut within gzip data, and damaged within it."""
    lines = b"".join(json.dumps({**JOB, "job_id": os.urandom(8).hex()}).encode() + b"\n" for _ in range(2000))
    packed = gzip.compress(lines)
    for data, said in ((packed[: len(packed) // 2], "cut"), (packed[:-8] + b"\xff" * 8, "damaged")):
        (tmp_path / "a.jsonl.gz").write_bytes(data)
        read, problem = broken_off(open_source(tmp_path / "a.jsonl.gz"))
        assert len(read) > 900 and not any(row.problem for row in read)
        assert f"a.jsonl.gz: after line {len(read)}: its gzip data is {said}" in problem


def test_a_cut_parquet_file_is_known_at_opening_a_damaged_one_where_it_is(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    table = pa.table({**{name: [value] * 5000 for name, value in JOB.items()}, "job_id": list(map(str, range(5000)))})
    pq.write_table(table, path, row_group_size=1000, compression="none", use_dictionary=False, write_page_checksum=True)
    whole = path.read_bytes()
    path.write_bytes(whole[:-100])
    with pytest.raises(InvalidInput, match=r"a\.parquet: "):
        open_source(path)
    at = whole.index(b"\x04\0\0\0004999") - 200
    path.write_bytes(whole[:at] + b"\xff" * 20 + whole[at + 20 :])
    read, problem = broken_off(open_source(path))
    assert len(read) > 4000 - 256 and f"a.parquet: it cannot be read after {len(read):,} rows" in problem


# CSV


def test_csv_cells_are_text_and_empty_ones_absent(tmp_path: Path) -> None:
    path = tmp_path / "jobs.csv"
    path.write_text(
        "\ufeffrequest,tenant,principal,labels,limits,inputs,inputs.n,job_id\r\n"
        '"a ""b""\r\nc, d",acme,ana,"[""x""]","{""max_steps"": 3}","{""a"": 1}",7,\r\n'
        "\r\nplain,acme,ana,,,,,5\r\n",
        newline="",
    )
    first, second = jobs(open_source(path))
    assert first == {
        "request": 'a "b"\r\nc, d', "tenant": "acme", "principal": "ana", "labels": ["x"], "limits": {"max_steps": 3},
        "inputs": {"a": 1, "n": "7"},
    }  # fmt: skip
    assert second == {"request": "plain", "tenant": "acme", "principal": "ana", "job_id": "5"}
    assert [row.place for row in open_source(path).rows()] == ["jobs.csv:2", "jobs.csv:5"]


def test_bad_records_of_csv_harm_no_other(tmp_path: Path) -> None:
    """Cells too few, JSON that is none, bytes that are no UTF-8, and a quote that is never closed."""
    path = tmp_path / "a.csv"
    path.write_bytes(b'request,limits\na\nb,{\n\xff,\n"open,\nc,\nd 5" x,\n')
    rows = list(open_source(path).rows())
    said = ["1 cells, where the header has 2", "limits", "not UTF-8", "no record of CSV", "", ""]
    assert [want in row.problem for want, row in zip(said, rows, strict=True)] == [True] * 6
    assert [json.loads(row.data)["request"] for row in rows[-2:]] == ["c", 'd 5" x']
    assert rows[3].original == b'"open,' and rows[3].place == "a.csv:5"


def test_a_quote_that_is_open_for_too_long_is_one_bad_row(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b'request\n"open\n' + b"line\n" * (MAX_LINE_BYTES // 5 + 10))
    rows = list(open_source(path).rows())
    assert "a quote is opened" in rows[0].problem and {row.problem for row in rows[1:]} == {""}
    assert len(rows) == MAX_LINE_BYTES // 5 + 11


def test_a_header_with_a_column_twice_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("request,request\n")
    with pytest.raises(InvalidInput, match=r"a\.csv: its header, line 1: the column 'request' is there twice"):
        open_source(tmp_path / "a.csv")


# Mapping


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_a_mapping_names_columns_and_constants_and_drops_the_rest(tmp_path: Path, ending: str) -> None:
    frame = pd.DataFrame({"question": ["q", "p"], "order": ["7", "8"], "other": ["x", "y"]})
    path = tmp_path / f"a.{ending}"
    if ending == "csv":
        frame.to_csv(path, index=False)
    elif ending == "jsonl":
        frame.to_json(path, orient="records", lines=True)
    else:
        frame.to_parquet(path)
    columns = {
        "request": "question",
        "tenant": "=acme",
        "principal": "=a=b",
        "labels": '=["l"]',
        "inputs.order": "order",
    }
    constants = {"tenant": "acme", "principal": "a=b", "labels": ["l"]}
    assert jobs(open_source(path, columns=columns)) == [
        {**constants, "request": q, "inputs": {"order": o}} for q, o in (("q", "7"), ("p", "8"))
    ]
    with pytest.raises(InvalidInput, match=r"'questoin'.*, which request .* there are: question, order, other"):
        open_source(path, columns={**columns, "request": "questoin"})


@pytest.mark.parametrize("columns", [{"": "a"}, {"a": ""}, {"inputs.": "a"}, {"a": 1}, "request=a", {"labels": "=["}])
def test_a_mapping_that_is_none_is_refused(columns: Any) -> None:
    with pytest.raises(InvalidInput):
        open_source([JOB], columns=columns)


# Tables, frames and records


def test_values_of_tables_become_what_json_holds() -> None:
    """Times in UTC, to the nanosecond; categories, UUIDs and decimals as text; nulls of structs absent."""
    utc = dt.datetime(2024, 5, 6, 7, 8, 9, tzinfo=dt.UTC)
    columns: dict[str, pa.Array] = {
        "ns": pa.array([1_000_000_001], pa.timestamp("ns", "Europe/Paris")),
        "naive": pa.array([utc.replace(tzinfo=None)], pa.timestamp("s")),
        "date": pa.array([dt.date(1950, 1, 2)]),
        "time": pa.array([dt.time(1, 2, 3, 400_000)]),
        "wait": pa.array([-1500], pa.duration("ms")),
        "money": pa.array([Decimal("1.10")]),
        "kind": pa.array(["x"]).dictionary_encode(),
        "view": pa.array(["v"], pa.string_view()),
        "uuid": pa.array([b"\x00" * 16], pa.uuid()),
        "struct": pa.array([{"a": None, "b": [dt.date(2020, 1, 1), None]}]),
        "map": pa.array([[("k", 1), ("n", None)]], pa.map_(pa.string(), pa.int64())),
        "none": pa.array([None], pa.int64()),
        "job_id": pa.array([12]),
        "request": pa.array(["r"]),
    }
    (job,) = jobs(open_source(pa.table(columns)))
    assert job == {
        "request": "r", "ns": "1970-01-01T00:00:01.000000001Z", "naive": "2024-05-06T07:08:09Z", "date": "1950-01-02",
        "time": "01:02:03.400", "wait": "-PT1.500S", "money": "1.10", "kind": "x", "view": "v",
        "uuid": "00000000-0000-0000-0000-000000000000", "struct": {"b": ["2020-01-01", None]},
        "map": {"k": 1, "n": None}, "job_id": "12",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (pa.array([b"xy"]), "binary of 2 bytes"),
        (pa.array([{"in": b"xy"}]), "binary of 2 bytes"),
        (pa.array([float("nan")]), "not a finite number"),
        (pa.array([float("inf")]), "not a finite number"),
        (pa.array([2**62], pa.timestamp("s")), "no year of four digits"),
        (pa.array([[("k", 1), ("k", 2)]], pa.map_(pa.string(), pa.int64())), "a key twice"),
        (pa.array([[(1, 1)]], pa.map_(pa.int64(), pa.int64())), "no form in JSON"),
        (pa.array([[dt.date(2020, 1, 1)]], pa.list_view(pa.date32())), "no form in JSON"),
    ],
)
def test_a_value_that_json_has_no_form_for_is_that_rows_problem(value: pa.Array, said: str) -> None:
    table = pa.table({"v": pa.concat_arrays([value, pa.nulls(1, value.type)]), "request": ["a", "b"]})
    rows = list(open_source(table).rows())
    assert "v" in rows[0].problem and said in rows[0].problem and not rows[0].data and rows[0].original
    assert rows[1].problem == "" and json.loads(rows[1].data) == {"request": "b"}


def every_form() -> list[tuple[str, Callable[[], Any], int | None]]:
    """Return three jobs in each form in which they may be in memory, and how many rows that says it has."""
    records = [{**JOB, "job_id": str(at)} for at in range(3)]
    table = pa.Table.from_pylist(records)
    options = SimpleNamespace(preserve_order=False)

    def batches(**_: Any) -> Iterator[pa.Table]:
        assert options.preserve_order
        yield from (table.slice(0, 2), table.slice(2))

    ray = SimpleNamespace(iter_batches=batches, context=SimpleNamespace(execution_options=options))
    return [
        ("table", lambda: table, 3),
        ("batch", lambda: table.to_batches()[0], 3),
        ("reader", lambda: table.to_reader(), None),
        ("dataset", lambda: ds.dataset(table), None),
        ("pandas", lambda: pd.DataFrame(records, index=[7, 8, 9]), 3),
        ("polars", lambda: pl.DataFrame(records), 3),
        ("ray", lambda: ray, None),
        ("list", lambda: records, 3),
        ("iterator", lambda: iter(records), None),
        ("jobs", lambda: [Job(**record) for record in records], 3),
    ]


@pytest.mark.parametrize(("form", "make", "total"), every_form(), ids=[form for form, _, _ in every_form()])
def test_the_same_jobs_come_of_every_form(form: str, make: Callable[[], Any], total: int | None) -> None:
    source = open_source(make())
    assert jobs(source) == [{**JOB, "job_id": str(at)} for at in range(3)]
    assert source.total == total and source.paths == ()
    described = json.loads(json.dumps(source.describe()))
    assert open_source(make()).same_prefix(described) == ""
    assert "mapping" in open_source(make(), columns={"request": "request"}).same_prefix(described)


def test_a_stream_is_read_no_further_than_it_is_asked_and_breaks_off_for_all_alike() -> None:
    read: list[int] = []

    def stream() -> Iterator[dict[str, Any]]:
        for at in range(3):
            read.append(at)
            yield {**JOB, "job_id": str(at)}
        raise InvalidInput("over")

    source = open_source(stream())
    first, second = source.rows(), source.rows()
    assert next(first).number == 0 and read == [0]
    assert [next(second).number for _ in range(2)] == [0, 1] and next(first).number == 1 and read == [0, 1]
    for rows in (first, source.rows()):
        with pytest.raises(InvalidInput, match="over"):
            list(rows)


def test_records_that_are_none_are_bad_rows() -> None:
    class Odd:
        """Nothing of JSON."""

    odd: Any = [JOB, 5, {1: 2}, {**JOB, "inputs": {"a": Odd()}}, {**JOB, "inputs": {"t": dt.date(2020, 1, 1)}}]
    rows = list(open_source(odd).rows())
    assert [bool(row.problem) for row in rows] == [False, True, True, True, False]
    assert json.loads(rows[4].data)["inputs"] == {"t": "2020-01-01"}


@pytest.mark.parametrize("given", [5, None, b"x", JOB, Job(**JOB), "", "a\0b", pa.scalar(1), pl.Series([1])])
def test_what_is_no_input_is_refused(given: Any) -> None:
    with pytest.raises(InvalidInput):
        open_source(given)


# Places


def test_folders_patterns_lists_and_uris_name_files_in_order(tmp_path: Path) -> None:
    for name in ("b", "a", "c"):
        write_lines(tmp_path / f"{name}.jsonl", {**JOB, "job_id": name})
    (tmp_path / "_SUCCESS").touch()
    (tmp_path / ".hidden.csv").touch()
    for named, ids in (
        (tmp_path, "abc"),
        (f"{tmp_path}/[ab].jsonl", "ab"),
        ([tmp_path / "c.jsonl", f"{tmp_path}/a*"], "ca"),
        (tmp_path.as_uri(), "abc"),
        (f"{tmp_path.as_uri()}/*.jsonl", "abc"),
    ):
        source = open_source(named)
        assert [job["job_id"] for job in jobs(source)] == list(ids)
        assert [path.name for path in source.paths] == [f"{each}.jsonl" for each in ids]


def test_files_that_cannot_be_meant_are_refused(tmp_path: Path) -> None:
    """Nothing there, several kinds, a folder within, an ending that is unknown; each says which."""
    with pytest.raises(InvalidInput, match="no files of jobs"):
        open_source(tmp_path)
    with pytest.raises(InvalidInput, match="No such file"):
        open_source(tmp_path / "none.jsonl")
    with pytest.raises(InvalidInput, match="no files of jobs"):
        open_source(f"{tmp_path}/*.csv")
    (tmp_path / "a.jsonl").touch()
    (tmp_path / "b.csv").touch()
    with pytest.raises(InvalidInput, match="several kinds"):
        open_source(tmp_path)
    (tmp_path / "b.csv").rename(tmp_path / "b.jsonl.zst")
    with pytest.raises(InvalidInput, match=r"b\.jsonl\.zst: jobs are read from"):
        open_source(tmp_path)
    (tmp_path / "b.jsonl.zst").unlink()
    (tmp_path / "sub").mkdir()
    with pytest.raises(InvalidInput, match="a folder within a folder"):
        open_source(tmp_path)
    for wrong in ("nothing://x/y", "file://elsewhere/x", ["-", tmp_path / "a.jsonl"], tmp_path / "x.parquet.gz"):
        with pytest.raises(InvalidInput):
            open_source(wrong)


def test_an_object_store_is_read_as_a_folder_is_and_credentials_are_shown_nowhere(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store, _ = fs.FileSystem.from_uri("mock://bucket")
    monkeypatch.setattr(places, "file_system", lambda uri: (store, uri.partition("@bucket/")[2].partition("?")[0]))
    table = io.BytesIO()
    pq.write_table(pa.Table.from_pylist([{**JOB, "job_id": "p"}]), table)
    packed = gzip.compress(json.dumps({**JOB, "job_id": "g"}).encode())
    for name, data in (("in/a.jsonl.gz", packed), ("in/deep/b.jsonl.gz", packed), ("t/x.parquet", table.getvalue())):
        store.create_dir(name.rpartition("/")[0], recursive=True)
        with store.open_output_stream(name, compression=None) as file:
            file.write(data)
    base = "s3://KEY:SECRET@bucket"
    for named, ids in (
        (f"{base}/in/a.jsonl.gz?region=x", "g"),
        (f"{base}/in/**/*.gz?region=x", "gg"),
        (f"{base}/in/*.gz", "g"),
        (f"{base}/t", "p"),
    ):
        source = open_source(named)
        assert "".join(job["job_id"] for job in jobs(source)) == ids
        assert source.same_prefix(source.describe()) == "" and source.paths == ()
        assert "SECRET" not in json.dumps(source.describe()) + str(list(source.rows()))
    assert open_source(f"{base}/t").total == 1
    with pytest.raises(InvalidInput, match=r"s3://bucket/none: there is no such file"):
        open_source(f"{base}/none")


def test_stdin_and_pipes_are_read_as_they_come(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = json.dumps(JOB) + "\n"
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode() * 2)))
    assert jobs(open_source("-")) == [JOB] * 2
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode("utf-16"))))
    assert "stdin: after line 0: it is UTF-16" in broken_off(open_source("-"))[1]
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=(tmp_path / "pipe").write_text, args=(text,))
    writer.start()
    assert jobs(open_source(tmp_path / "pipe")) == [JOB]
    writer.join()


# What it was, and what it is


def test_what_an_input_begins_with_is_compared_and_a_line_says_what_differs(tmp_path: Path) -> None:
    one, two = write_lines(tmp_path / "1.jsonl", JOB), write_lines(tmp_path / "2.jsonl", JOB)
    described = json.loads(json.dumps(open_source(tmp_path).describe()))
    assert [file["size"] for file in described["files"]] == [one.stat().st_size, two.stat().st_size]

    def differs() -> str:
        return open_source(tmp_path).same_prefix(described)

    with two.open("a") as file:
        file.write("{}\n")
    write_lines(tmp_path / "3.jsonl", JOB)
    assert "2.jsonl: changed" in differs(), "what stood behind it would be another row"
    (tmp_path / "3.jsonl").unlink()
    assert differs() == "", "the last file may grow"
    write_lines(two, JOB)
    write_lines(tmp_path / "3.jsonl", JOB)
    assert differs() == "", "and others may follow"
    write_lines(tmp_path / "15.jsonl", JOB)
    assert differs() == "15.jsonl: added before 2.jsonl"
    (tmp_path / "15.jsonl").unlink()
    write_lines(one, {**JOB, "request": "x"})
    assert "1.jsonl: changed" in differs()
    one.write_text("{}\n")
    assert "1.jsonl: shorter" in differs()
    one.unlink()
    assert "1.jsonl: not among what is read now" in differs()
    assert "was files" in open_source([JOB]).same_prefix(described)
    assert "now is files" in open_source(tmp_path).same_prefix({"kind": "table", "rows": 1})


def test_records_are_compared_by_what_they_hold() -> None:
    described = open_source([JOB, JOB]).describe()
    assert open_source([JOB, JOB, 5]).same_prefix(described) == ""
    assert "shorter" in open_source([JOB]).same_prefix(described)
    assert "changed" in open_source([JOB, {**JOB, "request": "x"}]).same_prefix(described)


# Growing


class Writer:
    """A clock that does something each time it is waited by."""

    def __init__(self, *steps: Callable[[], object]) -> None:
        self.now = 0.0
        self.steps = list(steps)

    def clock(self) -> float:
        """Return the time."""
        return self.now

    def pause(self, seconds: float) -> None:
        """Let time pass, and the next thing happen."""
        self.now += seconds
        if self.steps:
            self.steps.pop(0)()


@pytest.mark.parametrize("ending", ["jsonl", "csv"])
def test_a_file_is_read_on_as_it_grows_and_its_last_line_waited_for(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"a.{ending}"
    header = "request\n" if ending == "csv" else ""
    lines = [f"{at}\n" if ending == "csv" else json.dumps({"request": str(at)}) + "\n" for at in range(3)]
    path.write_text(header + lines[0])

    def add(text: str) -> Callable[[], object]:
        def write() -> None:
            with path.open("a") as file:
                file.write(text)

        return write

    writer = Writer(add(lines[1][:-2]), add(lines[1][-2:]), lambda: None, add(lines[2].rstrip()))
    source = open_source(path, follow_s=1.0, clock=writer.clock, pause=writer.pause)
    described = source.describe()
    assert described["files"][0]["size"] == len(header + lines[0])
    rows = list(source.rows())
    assert [json.loads(row.data)["request"] for row in rows] == ["0", "1", "2"]
    assert 1.5 < writer.now < 2.5
    assert open_source(path, follow_s=1.0).same_prefix(described) == ""


def test_a_file_that_is_cut_while_it_is_followed_is_an_error(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.jsonl", JOB)
    writer = Writer(lambda: path.write_text(""))
    source = open_source(path, follow_s=1.0, clock=writer.clock, pause=writer.pause)
    with pytest.raises(InvalidInput, match=r"a\.jsonl: after line 1: it was cut"):
        list(source.rows())


def test_what_cannot_grow_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(b""))
    for named, follow_s in ((tmp_path / "a.jsonl.gz", 1.0), ([JOB], 1.0), ("-", 1.0), (tmp_path / "a.jsonl.gz", -1.0)):
        with pytest.raises(InvalidInput):
            open_source(named, follow_s=follow_s)


# Round trips, and memory

TEXT = st.text(st.characters(exclude_categories=["Cs", "Cc"]) | st.sampled_from('\n\t,"'), min_size=1, max_size=20)
JOBS = st.fixed_dictionaries(
    {"request": TEXT, "tenant": st.just("acme"), "principal": st.just("ana"), "job_id": st.text("ab1", min_size=1)},
    optional={"labels": st.lists(st.text("ab", min_size=1, max_size=3)), "limits": st.just({"max_steps": 3})},
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(records=st.lists(JOBS, min_size=1, max_size=6))
def test_jobs_written_in_any_way_come_back_as_the_same_jobs(tmp_path: Path, records: list[dict[str, Any]]) -> None:
    write_lines(tmp_path / "a.jsonl", *records)
    with (tmp_path / "a.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, [*JOB, "job_id", "labels", "limits"])
        writer.writeheader()
        for record in records:
            nested = {name: json.dumps(record[name]) for name in ("labels", "limits") if name in record}
            writer.writerow({**record, **nested})
    pq.write_table(pa.Table.from_pylist(records, schema=_schema()), tmp_path / "a.parquet")
    wanted = [parse_job(json.dumps(record).encode(), 1) for record in records]
    for ending in ("jsonl", "csv", "parquet"):
        rows = list(open_source(tmp_path / f"a.{ending}").rows())
        assert [parse_job(row.data, 1) for row in rows] == wanted, ending


def _schema() -> pa.Schema:
    text = {name: pa.string() for name in (*JOB, "job_id")}
    return pa.schema({**text, "labels": pa.list_(pa.string()), "limits": pa.struct({"max_steps": pa.int64()})})


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_many_rows_need_no_more_memory_than_few(tmp_path: Path, ending: str) -> None:
    """Neither Python's nor Arrow's: 50,000 rows, which are some 25 MB."""
    path = tmp_path / f"a.{ending}"
    if ending == "jsonl":
        line = json.dumps({**JOB, "request": "x" * 450}) + "\n"
        path.write_text(line * 50_000)
    else:
        table = pa.table({**{name: [value] * 50_000 for name, value in JOB.items()}, "request": [
            f"{at:0450d}" for at in range(50_000)
        ]})  # fmt: skip
        pq.write_table(table, path, row_group_size=50_000, use_dictionary=False)
        del table
    source = open_source(path)
    before = pa.total_allocated_bytes()
    tracemalloc.start()
    arrow = 0
    for row in source.rows():
        if row.number % 1000 == 0:
            arrow = max(arrow, pa.total_allocated_bytes() - before)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert row.number == 49_999 and peak < 6e6 and arrow < 8e6


def test_a_file_whose_ending_is_none_of_the_formats_is_refused(tmp_path: Path) -> None:
    (tmp_path / "base.py").write_text("x = 1\n", encoding="utf-8")
    with pytest.raises(InvalidInput, match=r"base.py: jobs are read from \.jsonl, .*\.csv, \.parquet"):
        open_source(tmp_path / "base.py")


def test_a_mapped_column_that_no_row_has_is_the_inputs_error_before_anything_is_read_on(tmp_path: Path) -> None:
    """Rows without a header: mappings and JSON lines, of which the first hundred or all there are say what there is."""
    rows, path = [{"question": "r", "id": i} for i in range(3)], tmp_path / "jobs.jsonl"
    path.write_text("not json\n" + "".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    said = r"no column 'questoin' in its first 3 rows, which request is to be read from; there are: question, id"
    for each in (rows, tuple(rows), iter(rows), path, [path]):
        with pytest.raises(InvalidInput, match=said):
            open_source(each, columns={"request": "questoin"}).check_first()
    with pytest.raises(InvalidInput, match=said):
        open_source(path, columns={"request": "questoin"}, follow_s=60.0)
    said = "in its first 100 rows, which request.*; 100 of the iterator are taken: give a new one$"
    with pytest.raises(InvalidInput, match=said):
        open_source(({"question": "r"} for _ in itertools.count()), columns={"request": "questoin"}).check_first()


def test_an_input_without_any_request_is_refused_as_it_is_opened(tmp_path: Path) -> None:
    """Every row of it would be: whoever forgot the mapping is told of the columns there are, and how to map one."""
    rows = [{"id": f"k-{i}", "question": "r", "owner": "ana"} for i in range(3)]
    for name, written in (
        ("rows.csv", "id,question,owner\nk-1,r,ana\n"),
        ("rows.jsonl", "".join(json.dumps(row) + "\n" for row in rows)),
    ):
        (tmp_path / name).write_text(written, encoding="utf-8")
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet")
    said = (
        r"no column is the request, .*; there are: id, question, owner\. Map one: --column request=COLUMN \(in Python"
    )
    places = [tmp_path / f"rows.{ending}" for ending in ("csv", "jsonl", "parquet")]
    for each in (*places, rows, pa.Table.from_pylist(rows), pl.DataFrame(rows)):
        for mapping in (None, {"job_id": "id"}):
            with pytest.raises(InvalidInput, match=said):
                open_source(each, columns=mapping)
        assert open_source(each, columns={"request": "=the same of all"})
    assert open_source([{"id": "k-1"}, {"request": "r"}]), "one row that has none is that row's problem"


def test_a_mapped_column_that_no_row_of_a_stream_has_is_said_at_its_first_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of a file; who is slow to write them is not waited for, and then nobody knows."""
    rows = "".join(json.dumps({"question": "r", "id": i}) + "\n" for i in range(3))
    wrong, right = {"request": "questoin"}, {"request": "question", "inputs.id": "id"}
    said = r"stdin: jobs: no column 'questoin' in its first 3 rows, which request is .*; there are: question, id"
    for text in (rows, "not json\n" + rows):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
        source = open_source("-", columns=wrong)
        for look in (source.check_first, lambda source=source: list(source.rows())):
            with pytest.raises(InvalidInput, match=said):
                look()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(rows.encode())))
    source = open_source("-", columns=right)
    source.check_first()
    assert [job["inputs"]["id"] for job in jobs(source)] == [0, 1, 2], "what was looked at is there"
    os.mkfifo(tmp_path / "pipe")
    source = open_source(tmp_path / "pipe", columns=wrong)
    source.check_first()
    writer = threading.Thread(target=(tmp_path / "pipe").write_text, args=(rows,))
    writer.start()
    with pytest.raises(InvalidInput, match="pipe: jobs: no column 'questoin' in its first 3 rows"):
        list(source.rows())
    writer.join()


def test_nobody_waits_for_a_stream_whose_writer_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """For its first row not, nor for a second one that may have the column."""
    reading, writing = os.pipe()
    moments = itertools.count(step=10)
    with open(reading, "rb") as there, open(writing, "wb", buffering=0) as writer:
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=SimpleNamespace(raw=there)))
        monkeypatch.setattr(sources, "FIRST_S", 0.0)
        source = open_source("-", columns={"request": "q", "inputs.id": "id"}, clock=lambda: next(moments))
        source.check_first()
        writer.write(b'{"q": "r"}\n')
        assert next(source.rows()).data == b'{"request":"r"}'


def test_a_column_that_some_of_the_first_rows_have_is_there() -> None:
    """A null is enough, and of an iterator no more rows are taken than it needs; what breaks it off does so later."""
    rows: list[Any] = [{"q": "r"}, {"q": None, "sku": None}, {"q": "r"}]
    mapping = {"request": "q", "inputs.sku": "sku"}
    assert len(list(open_source(rows, columns=mapping).rows())) == 3

    def breaking() -> Iterator[Any]:
        yield rows[0]
        raise OSError("gone")

    taken, moments = iter(rows), itertools.count()
    open_source(taken, columns=mapping).check_first()
    assert len(list(taken)) == 1, "two were enough"
    slow = itertools.repeat({"q": "r"})
    open_source(slow, columns=mapping, clock=lambda: 0.6 * next(moments)).check_first()  # waits for no hundred
    source = open_source(breaking(), columns={"request": "q"})
    assert next(source.rows()).data
    with pytest.raises(OSError, match="gone"):
        list(source.rows())
