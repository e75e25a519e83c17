"""Results are in parts that are whole, nothing that was taken is lost, and one file is made of them."""

from __future__ import annotations

import errno
import json
import os
import stat
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import csv, fs
from pyarrow import dataset as arrow_dataset

from airside.actors.client.results import COLUMNS
from airside.batches import part_store
from airside.batches.assembly import assemble
from airside.batches.manifest import Manifest, write_manifest
from airside.batches.parts import Parts, read_parts
from airside.batches.result_schema import SCHEMA
from airside.batches.rows import Row
from airside.batches.target import Target
from airside.stack.errors import Failed, InvalidInput

OWNER = "0a1b2c3d"
BAD = Row(7, b"", b'{"token": "ask_secret", \xff', "a.jsonl:8", "no JSON")


def result(row: int, attempt: int = 1, **more: Any) -> dict[str, Any]:
    """Return a row of results."""
    return {"row": row, "attempt": attempt, "job_id": f"j{row}", "digest": row.to_bytes(8, "big"), **more}


def read(place: Path | str, columns: list[str] | None = None) -> list[dict[str, Any]]:
    """Return all results in parts."""
    return [row for batch in read_parts(place, columns) for row in batch.to_pylist()]


def names(folder: Path) -> list[str]:
    """Return what is in a folder."""
    return sorted(path.name for path in folder.iterdir())


def test_the_columns_are_those_of_results_each_with_its_description(tmp_path: Path) -> None:
    assert SCHEMA.names == ["row", "attempt", *COLUMNS, "digest", "ended_us", "problem"]
    with Parts(tmp_path, OWNER) as parts:
        parts.add(result(1))
    schema = pq.read_schema(tmp_path / f"part-000001-{OWNER}.parquet")
    assert schema.equals(SCHEMA) and all(field.metadata[b"description"] for field in schema)


def test_parts_are_committed_by_number_by_time_and_at_the_end(tmp_path: Path) -> None:
    now = 0.0
    with Parts(tmp_path / "out", OWNER, every=3, seconds=5.0, clock=lambda: now) as parts:
        for at in range(4):
            parts.add(result(at))
        assert names(tmp_path / "out") == [f"part-000001-{OWNER}.parquet"] and parts.pending == 1
        now = 4.9
        assert not parts.commit_if_due()
        now = 5.1
        assert parts.commit_if_due() and not parts.commit_if_due() and parts.pending == 0
        parts.add(result(4))
    assert [row["row"] for row in read(tmp_path / "out")] == [0, 1, 2, 3, 4]
    with Parts(tmp_path / "out", "ffffffff") as parts:
        parts.add(result(5))
    assert names(tmp_path / "out")[-1] == "part-000004-ffffffff.parquet"
    assert read(tmp_path / "out", ["row", "job_id"])[-1] == {"row": 5, "job_id": "j5"}


def test_long_answers_are_committed_though_they_are_few(tmp_path: Path) -> None:
    parts = Parts(tmp_path, OWNER)
    for at in range(5):
        parts.add(result(at, answer="x" * 8 * 2**20))
    assert parts.pending == 1 and len(names(tmp_path)) == 1


def test_what_is_no_row_is_refused_and_harms_no_other(tmp_path: Path) -> None:
    parts = Parts(tmp_path, OWNER)
    for wrong in ({"row": 1}, result(1, other=1), result(1, steps="many"), result(2**63), result(1) | {"digest": b"1"}):
        with pytest.raises(InvalidInput, match="a row of results"):
            parts.add(wrong)
    parts.add(result(1, detail="a\udcff"))
    parts.close()
    assert [row["detail"] for row in read(tmp_path)] == ["a\\udcff"]
    with pytest.raises(InvalidInput, match="eight hex digits"):
        Parts(tmp_path, "me")


def test_leftovers_and_other_files_are_no_parts(tmp_path: Path) -> None:
    """What a dead writer left is removed when the next one opens; a reader passes it over."""
    left = f".part-000009-{OWNER}.parquet.tmp"
    for name in (left, "part-000008-0a1b2c3d.parquet.tmp", "notes.txt"):
        (tmp_path / name).write_text("half")
    assert read(tmp_path) == []
    with Parts(tmp_path, OWNER) as parts:
        parts.add(result(1))
    assert left not in names(tmp_path) and "notes.txt" in names(tmp_path)
    assert len(read(tmp_path)) == 1
    with pytest.raises(InvalidInput, match="no such folder"):
        read(tmp_path / "none")


def test_a_part_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / f"part-000001-{OWNER}.parquet").write_bytes(b"PAR1 nothing")
    with pytest.raises(InvalidInput, match="part-000001"):
        read(tmp_path)
    with pytest.raises(InvalidInput, match="part-000001"):
        assemble(tmp_path, tmp_path / "out.csv")
    assert names(tmp_path) == [f"part-000001-{OWNER}.parquet"]
    with pytest.raises(InvalidInput, match="no column 'rwo'"):
        read(tmp_path, ["rwo"])


def test_of_a_full_disk_nothing_is_lost_and_nothing_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither results nor rejects; the error says which file."""
    parts = Parts(tmp_path, OWNER, every=100)
    parts.add(result(1))
    parts.reject(BAD, "", "no JSON")
    parts.commit()
    before = (tmp_path / "_rejects.jsonl").read_bytes()
    parts.add(result(2))
    parts.reject(BAD._replace(number=9), "", "no JSON")
    fsync = os.fsync

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(part_store.os, "fsync", full)
        with pytest.raises(Failed, match=r"rejects\.jsonl: it cannot be written: No space left"):
            parts.commit()
        assert (tmp_path / "_rejects.jsonl").read_bytes() == before and parts.pending == 2

        def full_for_parts(descriptor: int) -> None:
            full(0) if ".tmp" in os.readlink(f"/proc/self/fd/{descriptor}") else fsync(descriptor)

        patch.setattr(part_store.os, "fsync", full_for_parts)
        with pytest.raises(Failed, match=rf"part-000002-{OWNER}\.parquet: it cannot be written: No space left"):
            parts.commit()
        assert parts.pending == 1 and names(tmp_path) == ["_rejects.jsonl", f"part-000001-{OWNER}.parquet"]
    parts.add(result(3))
    parts.commit()
    assert [row["row"] for row in read(tmp_path)] == [1, 2, 3]
    assert [json.loads(line)["row"] for line in (tmp_path / "_rejects.jsonl").read_text().splitlines()] == [7, 9]


def test_rejects_are_lines_that_a_person_can_mend_without_the_token(tmp_path: Path) -> None:
    with Parts(tmp_path, OWNER) as parts:
        parts.reject(BAD, "line-8", "no JSON")
    (line,) = (tmp_path / "_rejects.jsonl").read_text().splitlines()
    assert json.loads(line) == {
        "row": 7, "attempt": 1, "place": "a.jsonl:8", "job_id": "line-8", "problem": "no JSON",
        "original": '{"token": "...", \\xff',
    }  # fmt: skip
    assert stat.S_IMODE((tmp_path / "_rejects.jsonl").stat().st_mode) & 0o077 == 0


def test_whatever_reads_parquet_reads_the_folder(tmp_path: Path) -> None:
    """What stands beside the parts has names that readers pass over."""
    with Parts(tmp_path, OWNER) as parts:
        parts.add(result(1))
        parts.reject(BAD, "row-7", "no JSON")
    write_manifest(tmp_path, Manifest(batch="b", input={}))
    assert pq.read_table(tmp_path).column("row").to_pylist() == [1]
    assert arrow_dataset.dataset(tmp_path, format="parquet").count_rows() == 1


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """An object store in this process."""
    system, _ = fs.FileSystem.from_uri("mock://bucket")
    monkeypatch.setattr(part_store, "file_system", lambda uri: (system, "out"))
    return system


def test_an_object_store_has_the_same_parts(store: Any, tmp_path: Path) -> None:
    uri = "s3://KEY:SECRET@bucket/out"
    assert read(uri) == []
    for owner in (OWNER, "ffffffff"):
        with Parts(uri, owner, every=2) as parts:
            for at in range(3):
                parts.add(result(at))
            parts.reject(BAD, "", "no JSON")
    infos = store.get_file_info(fs.FileSelector("out"))
    assert sorted(info.base_name for info in infos) == [
        "_rejects-000001.jsonl", "_rejects-000002.jsonl",
        f"part-000001-{OWNER}.parquet", f"part-000002-{OWNER}.parquet",
        "part-000003-ffffffff.parquet", "part-000004-ffffffff.parquet",
    ]  # fmt: skip
    assert len(read(uri)) == 6 and assemble(uri, tmp_path / "out.parquet") == 3
    store.delete_dir("out")
    with store.open_output_stream("out") as file:
        file.write(b"")  # a file where the folder would be
    with pytest.raises(InvalidInput, match="s3://bucket/out: "):
        read(uri)


def test_a_file_uri_is_a_folder_here(tmp_path: Path) -> None:
    with Parts((tmp_path / "o ut").as_uri(), OWNER) as parts:
        parts.add(result(1))
    assert len(read(tmp_path / "o ut")) == 1


# One file


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    given=st.lists(st.tuples(st.integers(0, 6), st.integers(1, 3)), unique=True, max_size=12),
    answers=st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=8), min_size=12, max_size=12),
)
def test_one_file_has_the_latest_attempt_at_each_row_in_order(
    tmp_path_factory: pytest.TempPathFactory, given: list[tuple[int, int]], answers: list[str]
) -> None:
    folder = tmp_path_factory.mktemp("batch")
    rows = [
        result(row, attempt, answer=answer, seconds=0.5) for (row, attempt), answer in zip(given, answers, strict=False)
    ]
    with Parts(folder / "parts", OWNER, every=4) as parts:
        for each in rows:
            parts.add(each)
    latest = {each["row"]: each for each in sorted(rows, key=lambda each: each["attempt"])}
    wanted = [{**dict.fromkeys(SCHEMA.names), **latest[row]} for row in sorted(latest)]
    for ending in ("parquet", "jsonl", "csv"):
        assert assemble(folder / "parts", folder / f"out.{ending}") == len(wanted)
    assert pq.read_table(folder / "out.parquet").to_pylist() == wanted
    as_hex = [{**each, "digest": each["digest"].hex()} for each in wanted]
    assert [json.loads(line) for line in (folder / "out.jsonl").read_bytes().splitlines()] == as_hex
    if not any("\r" in answer or "\0" in answer for answer in answers):
        options = csv.ParseOptions(newlines_in_values=True)
        assert csv.read_csv(folder / "out.csv", parse_options=options).num_rows == len(wanted)
    assert names(folder) == ["out.csv", "out.jsonl", "out.parquet", "parts"]


def test_a_target_is_checked_before_and_keeps_what_was_there_until_it_is_whole(tmp_path: Path) -> None:
    (tmp_path / "jobs").write_text("{}")
    os.mkfifo(tmp_path / "pipe")
    for out, said in (
        ("/dev/null", "no regular file"),
        ("pipe", "no regular file"),
        ("", "a folder"),
        ("jobs", "the jobs file"),
        ("jobs/out", "Not a directory|File exists"),
        ("x" * 300, "File name too long"),
        ("out.xlsx", "parquet, .csv, .jsonl"),
    ):
        with pytest.raises(InvalidInput, match=said), Target.opened(tmp_path / out, [tmp_path / "jobs"]):
            pass
    (tmp_path / "real").write_text("before")
    (tmp_path / "real").chmod(0o640)
    (tmp_path / "link").symlink_to("real")
    with Target.opened(tmp_path / "link") as target:
        target.part.write_text("half")
    assert (tmp_path / "real").read_text() == "before"
    with Target.opened(tmp_path / "link") as target:
        target.part.write_text("whole")
        target.replace()
    assert (tmp_path / "link").is_symlink() and (tmp_path / "real").read_text() == "whole"
    assert stat.S_IMODE((tmp_path / "real").stat().st_mode) == 0o640
    assert names(tmp_path) == ["jobs", "link", "pipe", "real"]


def test_one_file_is_made_with_little_memory(tmp_path: Path) -> None:
    """Of some 50 MB of answers: neither Python's nor Arrow's grows with them."""
    with Parts(tmp_path / "parts", OWNER, every=1000) as parts:
        table = pa.table({"answer": [os.urandom(500).hex() for _ in range(1000)]})
        for at in range(50):
            rows = [{**result(at * 1000 + i), "answer": text} for i, text in enumerate(table["answer"].to_pylist())]
            parts._rows = rows  # adding each takes longer
            parts.commit()
    before = pa.total_allocated_bytes()
    pool = pa.default_memory_pool()
    tracemalloc.start()
    assert assemble(tmp_path / "parts", tmp_path / "out.jsonl") == 50_000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20e6 and pool.bytes_allocated() - before < 20e6
