"""What auditors read: named queries, SQL of their own over what is their tenant's, and the journal as it grows."""

from __future__ import annotations

import msgspec
from msgspec import Raw
from starlette.responses import Response

from airside.actors.api.call import Call, as_json, look
from airside.actors.api.messages import ChainCheckRequest, FeedItem, FeedItems, FeedQuery, QueryParameters, SqlQuery
from airside.actors.api.problems import check
from airside.actors.rpc.methods import FOLLOW, FeedRequest
from airside.stack.journal.feed import JournalEntry
from airside.stack.operations.questions import AuditSql, ChainOf, Nothing, OfTenant


async def queries(call: Call) -> Response:
    """List the queries there are, each with what it is for."""
    return as_json(await look(call, "queries", Nothing()))


async def query(call: Call) -> Response:
    """Answer one of the queries there are."""
    body: QueryParameters = call.body
    asked = AuditSql(query=call.path["query"], parameters=body.parameters, tenant=body.tenant, since=body.since)
    return as_json(await look(call, "sql", asked))


async def sql(call: Call) -> Response:
    """Answer one SELECT over what is the tenant's of `events`, `runs` and `outcomes`."""
    body: SqlQuery = call.body
    asked = AuditSql(sql=body.sql, parameters=body.parameters, tenant=body.tenant, since=body.since)
    return as_json(await look(call, "sql", asked))


async def search_entries(call: Call) -> Response:
    """Search the journal, newest entries first; one question goes back a bounded way, and `next` goes on from there."""
    return as_json(await look(call, "search", call.query))


async def chain(call: Call) -> Response:
    """Say how chains stand: whether they are whole, up to where, and when that was found."""
    asked: OfTenant = call.query
    return as_json(await look(call, "chain", ChainOf(tenant=asked.tenant)))


async def check_chain(call: Call) -> Response:
    """Begin to check all chains, if nobody has in the last minute; how they stand says when it is done."""
    body: ChainCheckRequest = call.body
    return as_json(await look(call, "chain", ChainOf(tenant=body.tenant, check=True)))


async def entries(call: Call) -> FeedItems:
    """Return entries of the tenant's journal in the order in which they were made durable, and the next cursor."""
    asked: FeedQuery = call.query
    page = await call.stack.ask(FOLLOW, FeedRequest(asked.after, asked.wait_s, asked.tenant or None, call.credential))
    check(page.code, page.problem)
    return FeedItems(entries=tuple(map(_item, page.entries)), cursor=page.cursor)


def _item(entry: JournalEntry) -> FeedItem:
    fields = {name: value for name, value in msgspec.structs.asdict(entry).items() if name != "body"}
    return FeedItem(**fields, event=Raw(entry.body.encode()))
