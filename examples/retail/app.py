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
from airside.stack.directory import Directory, Principal, Tenant
from examples.retail import operations
from examples.retail.store import BusinessError, JsonValue, Store, apply_once, build_base, open_run

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
        policy=POLICIES / f"{policy}.yaml",
        directory=shop_directory(data_dir),
        job_inputs=JobInputs,
        version="retail-1",
    )


def run_file(work: Path, run_id: str) -> Path:
    """Return where a run's state lies."""
    return work / "runs" / f"{run_id}.sqlite"


def shop_tools(data: Path, work: Path) -> Toolset:
    """Return the 16 tools, which share a connection to the run's own file."""
    base = work / "base.sqlite"

    def open_state(context: ToolContext) -> sqlite3.Connection:
        if not base.exists():
            base.parent.mkdir(parents=True, exist_ok=True)
            build_base(data, base)
        path = run_file(work, context.run_id)
        path.parent.mkdir(parents=True, exist_ok=True)
        return open_run(base, path)

    schemas = json.loads((data / "tool_schemas.json").read_text(encoding="utf-8"))
    tools = [_tool(schema["name"], schema["parameters"]) for schema in schemas]
    return Toolset("shop", tuple(tools), open_state, lambda connection: connection.close())


def _tool(name: str, schema: dict[str, Any]) -> Tool:
    operation = operations.OPERATIONS[name]
    if name in operations.READS:
        return Tool.from_schema(name, schema, _reading(operation), effect="read", description=operation.__doc__ or "")
    changing = _changing(name, operation)
    return Tool.from_schema(
        name, schema, changing, effect="write", idempotent=True, description=operation.__doc__ or ""
    )


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
    """Return the shops as tenants; every customer is a principal of each, who owns their orders."""
    users = json.loads((data / "users.json").read_text(encoding="utf-8"))
    customers = {
        user_id: Principal(roles=["customer"], attributes={"orders": user["orders"]}) for user_id, user in users.items()
    }
    shops = sorted({json.loads(line)["tenant"] for line in (data / "jobs.jsonl").read_text().splitlines()})
    return Directory(tenants={shop: Tenant(principals=customers) for shop in shops})
