"""The retail shop as a governed app: 16 tools over a run's own SQLite file, and two policies.

A change and its idempotency key are one transaction (`store.apply_once`), so a call that is sent again after a crash
is answered from the file.  The file outlives the process, and the next executor opens it where it stands.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from airside import App, ReplayAgent, Tool, ToolContext, ToolError, Toolset
from airside.directory import Directory, Principal, Tenant
from airside.resources import Resolver, ResolverContext, Resource, ResourceId, resolver
from examples.retail import operations
from examples.retail.store import BusinessError, JsonValue, Record, Store, apply_once, build_base, find, open_run

HERE = Path(__file__).parent
OWN_DATA = HERE / "data"
POLICIES = HERE / "policies"


class JobInputs(BaseModel):
    """What a line of the retail jobs file has beyond a job's own fields."""

    model_config = ConfigDict(extra="forbid", strict=True)

    actions: list[dict[str, Any]]
    business_errors: list[int] = []
    final_state_sha256: str = ""


def create_app(data: str | Path = OWN_DATA, work: str | Path = ".airside/retail", policy: str = "confirmed") -> App:
    """Return the app over the data in `data`; runs keep their state under `work`; `policy` names a file here."""
    data_dir, work_dir = Path(data).resolve(), Path(work).resolve()
    return App(
        agents={"clerk": ReplayAgent()},
        tools=[shop_tools(data_dir, work_dir)],
        resolvers=shop_resolvers(data_dir, work_dir),
        policy=POLICIES / f"{policy}.yaml",
        directory=shop_directory(data_dir),
        job_inputs=JobInputs,
        version="retail-1",
    )


def run_file(work: Path, run_id: str) -> Path:
    """Return where a run's state lies."""
    return work / "runs" / f"{run_id}.sqlite"


def base_file(data: Path, work: Path) -> Path:
    """Return the file that every run's state begins as a copy of; make it if there is none."""
    base = work / "base.sqlite"
    if not base.exists():
        base.parent.mkdir(parents=True, exist_ok=True)
        build_base(data, base)
    return base


def shop_tools(data: Path, work: Path) -> Toolset:
    """Return the 16 tools, which share a connection to the run's own file."""

    def open_state(context: ToolContext) -> sqlite3.Connection:
        base = base_file(data, work)
        path = run_file(work, context.run_id)
        path.parent.mkdir(parents=True, exist_ok=True)
        return open_run(base, path)

    schemas = json.loads((data / "tool_schemas.json").read_text(encoding="utf-8"))
    tools = [_tool(schema["name"], schema["parameters"]) for schema in schemas]
    return Toolset("shop", tuple(tools), open_state, lambda connection: connection.close())


ABOUT = {"order_id": "order", "user_id": "account"}
"""Which arguments name resources, and of which kind."""


def _tool(name: str, schema: dict[str, Any]) -> Tool:
    operation = operations.OPERATIONS[name]
    told: dict[str, Any] = {
        "description": operation.__doc__ or "",
        "resource": [(kind, argument) for argument, kind in ABOUT.items() if argument in schema["properties"]],
    }
    if name in operations.READS:
        return Tool.from_schema(name, schema, _reading(operation), effect="read", **told)
    return Tool.from_schema(name, schema, _changing(name, operation), effect="write", idempotent=True, **told)


def shop_resolvers(data: Path, work: Path) -> dict[str, Resolver]:
    """Return whose orders and accounts are, by the run's own file, or the base before the run has one."""

    def look(table: str, record_id: ResourceId, context: ResolverContext) -> Record | None:
        path = run_file(work, context.run_id)
        return find(path if path.exists() else base_file(data, work), table, str(record_id))

    @resolver(attributes=("status",))
    def order(order_id: ResourceId, context: ResolverContext) -> Resource | None:
        found = look("orders", order_id, context)
        if found is None:
            return None
        return Resource(tenant=context.tenant, owner=found["user_id"], attributes={"status": found["status"]})

    @resolver()
    def account(user_id: ResourceId, context: ResolverContext) -> Resource | None:
        found = look("users", user_id, context)
        return (
            None if found is None else Resource(tenant=context.tenant, owner=str(user_id), sensitivity="confidential")
        )

    return {"order": order, "account": account}


def _reading(operation: Callable[..., JsonValue]) -> Callable[..., JsonValue]:
    def read(context: ToolContext, **arguments: Any) -> JsonValue:
        return _business(partial(operation, Store(context.state), **arguments))

    return read


def _changing(name: str, operation: Callable[..., JsonValue]) -> Callable[..., JsonValue]:
    def change(context: ToolContext, **arguments: Any) -> JsonValue:
        def body(store: Store) -> JsonValue:
            return operation(store, **arguments)

        return _business(partial(apply_once, context.state, context.idempotency_key, name, body))

    return change


def _business(call: Callable[[], JsonValue]) -> JsonValue:
    """Turn a violated condition into a failed call that changed nothing."""
    try:
        return call()
    except BusinessError as error:
        raise ToolError(str(error)) from None


def shop_directory(data: Path) -> Directory:
    """Return the shops as tenants; every customer is a principal of each."""
    users = json.loads((data / "users.json").read_text(encoding="utf-8"))
    customers = {user_id: Principal(roles=["customer"]) for user_id in users}
    shops = sorted({json.loads(line)["tenant"] for line in (data / "jobs.jsonl").read_text().splitlines()})
    return Directory(tenants={shop: Tenant(principals=customers) for shop in shops})
