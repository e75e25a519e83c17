"""A stack whose journal is in PostgreSQL: the server is killed, restarted and kept away under its runs."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest

from airside import ReasonCode
from airside.actors.audit import open_audit
from airside.actors.client.client import Stack
from tests.cluster.test_ray_recovery import RUNS, all_up, half_done, start_batch
from tests.on_ray import BOUND_S, a_stack, call, ledger_of, sigkill, submit, until
from tests.postgres import Server

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """The journal's server."""
    with closing(Server()) as started:
        yield started


@pytest.fixture(scope="module")
def stack(local_ray: None, server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack on it."""
    folder = tmp_path_factory.mktemp("postgres")
    url = server.new_database()
    with a_stack(folder, "postgres", executors=1, journal=url) as started:
        yield started
        assert started.status()["journal"]["path"].startswith("PostgreSQL database 'journal_1' at ")
    with open_audit(folder) as left:  # it says itself where its journal is
        assert left.verify() == [] and left.runs()


@pytest.mark.parametrize("who", ["server", "sessions", "journal"])
def test_a_batch_survives_the_death_of(stack: Stack, server: Server, who: str) -> None:
    """Everything once, whether the server, its sessions or the process that writes are killed."""
    handles, texts = start_batch(stack, who)
    half_done(stack, handles)
    if who == "server":
        server.kill()
        server.start()
    elif who == "sessions":
        with server.admin() as session:
            session.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'journal_1'")
    else:
        assert sigkill(stack, "journal")
    results = stack.results(handles, timeout=BOUND_S)
    assert [r.reason_code for r in results] == [ReasonCode.COMPLETED] * RUNS
    assert ledger_of(stack).texts(f"{who} ") == texts
    until(lambda: all_up(stack), "every layer to be up again")
    assert stack.verify() == []


def test_while_the_server_is_away_nothing_is_admitted(stack: Stack, server: Server) -> None:
    """What is submitted waits, or is sent again; the stack says what it waits for; once it is back all goes on."""
    server.stop()
    with ThreadPoolExecutor(1) as pool:
        sent = pool.submit(submit, stack, call("note", text="after", pace_ms=0))
        try:
            until(lambda: "PostgreSQL" in str(stack.status()["journal"]["problem"]), "the journal to say what is wrong")
            assert not sent.done() and ledger_of(stack).texts("after") == []
        finally:
            server.start()
        handle = sent.result(timeout=BOUND_S)
    assert handle.result(timeout=BOUND_S).reason_code is ReasonCode.COMPLETED
    assert ledger_of(stack).texts("after") == ["after"]
