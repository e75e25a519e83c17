"""`airside memory`: what operators and keepers do with a stack's memory."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast, get_args

import typer

from airside.options import HERE, StateDir, path_of, say_none
from airside.stack.errors import Misuse

if TYPE_CHECKING:
    from airside.memory.storage.erasure_plan import ErasureReceipt

memory = typer.Typer(no_args_is_help=True, help="What is kept of runs: search it, put it in order, erase it.")

ParquetFile = Annotated[Path, typer.Argument(parser=path_of, help="a Parquet file")]
Tenant = Annotated[str, typer.Option(help="whose memory")]
RecordArgument = Annotated[str, typer.Argument(help="the record's id, as `airside memory records` shows it")]
Credential = Annotated[str, typer.Option("--token", help="a token or API key of a principal with role memory_keeper")]


@memory.command()
def search(
    query: Annotated[str, typer.Argument(help="what a run would ask for")],
    tenant: Tenant,
    top_k: Annotated[int, typer.Option(help="how many records at most")] = 4,
    min_score: Annotated[float | None, typer.Option(help="the least probability of being relevant")] = None,
    state_dir: StateDir = HERE,
) -> None:
    """Show what a run with every clearance would recall, best first, with why."""
    from airside.cli import attached

    with attached(state_dir) as stack:
        found = stack.memory.search(query, tenant=tenant, top_k=top_k, min_score=min_score)
        for r in found:
            typer.echo(f"{r.score:.2f}  {r.record_id}  {r.text}")
            typer.echo(
                f"      cosine {r.cosine:.2f}, bm25 {r.bm25:.1f}, rank {r.rank:.2f}; {r.kind}, {r.sensitivity}, "
                f"trust {r.trust}, {r.age_s / 86_400:.1f} days old, until {_day(r.expires_us)}; {r.source}"
            )
    say_none(found, f"a run of {tenant} would recall nothing")


@memory.command()
def records(tenant: Tenant, token: Credential = "", state_dir: StateDir = HERE) -> None:
    """List all that is kept, also what is superseded or quarantined."""
    from airside.cli import attached

    with attached(state_dir) as stack:
        kept = stack.memory.records(tenant=tenant, token=token)
        for r in kept:
            until = "pinned" if r.pinned else f"until {_day(r.expires_us)}"
            typer.echo(f"{r.record_id}  {r.state}  {r.kind}  {r.sensitivity}  trust {r.trust}  {until}  {r.text}")
    say_none(kept, f"memory has nothing of tenant {tenant}")


@memory.command()
def pin(
    record_id: RecordArgument,
    tenant: Tenant,
    off: Annotated[bool, typer.Option("--off", help="as long as its kind does, from now")] = False,
    token: Credential = "",
    state_dir: StateDir = HERE,
) -> None:
    """Let a record stay for ever; with --off, as long as its kind does from now."""
    from airside.cli import attached

    with attached(state_dir) as stack:
        _there_was(stack.memory.pin(record_id, tenant=tenant, pinned=not off, token=token), record_id)


@memory.command()
def quarantine(
    record_id: RecordArgument,
    tenant: Tenant,
    release: Annotated[bool, typer.Option("--release", help="let it be recalled again")] = False,
    token: Credential = "",
    state_dir: StateDir = HERE,
) -> None:
    """Keep a record from being recalled; with --release, let it be again."""
    from airside.cli import attached

    with attached(state_dir) as stack:
        _there_was(stack.memory.quarantine(record_id, tenant=tenant, release=release, token=token), record_id)


@memory.command()
def erase(
    tenant: Tenant,
    record: Annotated[str, typer.Option(help="one record, by id")] = "",
    subject: Annotated[str, typer.Option(help="all about one subject")] = "",
    all: Annotated[bool, typer.Option("--all", help="all of the tenant")] = False,
    only: Annotated[
        str,
        typer.Option(help="of what derives from it: own (nothing) or repeats (what has a name or phrase of it)"),
    ] = "",
    keep: Annotated[list[str] | None, typer.Option(help="a record that derives from it and stays, by id")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="show what would go, and why")] = False,
    token: Credential = "",
    state_dir: StateDir = HERE,
) -> None:
    """Erase records and what derives from them, from results at once and from every file when this ends."""
    from airside.cli import attached
    from airside.stack.contracts.memory import Only

    if only not in get_args(Only):
        raise Misuse(f"--only {only}: one of {', '.join(get_args(Only)[1:])}")
    with attached(state_dir) as stack:
        receipt = stack.memory.erase(
            tenant=tenant,
            record=record,
            subject=subject,
            all=all,
            only=cast(Only, only),
            keep=keep or (),
            dry_run=dry_run,
            token=token,
        )
        is_some_left = receipt.dry_run or receipt.left
        kept = stack.memory.records(tenant=tenant, token=token) if is_some_left else []
        _print_receipt(receipt, {r.record_id: r.text for r in kept})
        if not receipt.taken:
            about = f"record {record}" if record else f"subject {subject}" if subject else "anything"
            typer.echo(f"memory has nothing of tenant {tenant} about {about}")


def _print_receipt(receipt: ErasureReceipt, texts: Mapping[str, str]) -> None:
    """Print what goes and what stays, each with why; texts only of what is still there."""
    typer.echo(receipt.summary())
    going = "would go" if receipt.dry_run else "erased"
    for what, reached in ((going, receipt.taken), ("left", receipt.left)):
        for each in reached:
            others = ", about others too" if each.others else ""
            typer.echo(f"{each.record_id}  {what}  {each.why}{others}  {texts.get(each.record_id, '')}".rstrip())


@memory.command()
def export(path: ParquetFile, tenant: Tenant, state_dir: StateDir = HERE) -> None:
    """Write all that is kept to a Parquet file."""
    from airside.cli import attached

    if path.suffix.lower() not in ("", ".parquet"):
        raise Misuse(f"{path}: what is written is Parquet: give a name that ends with .parquet")
    with attached(state_dir) as stack:
        typer.echo(f"{path}: {stack.memory.export(path, tenant=tenant)} bytes")


@memory.command("import")
def import_from(
    path: ParquetFile,
    tenant: Tenant,
    trust: Annotated[str, typer.Option(help="low, medium or high: how far they are believed")] = "medium",
    state_dir: StateDir = HERE,
) -> None:
    """Offer memory the live records of a file that export wrote."""
    from airside.cli import attached
    from airside.stack.values import TRUSTS

    if trust not in TRUSTS:
        raise Misuse(f"--trust {trust}: one of {', '.join(TRUSTS)}")
    with attached(state_dir) as stack:
        for code, count in sorted(stack.memory.import_from(path, tenant=tenant, trust=trust).items()):
            typer.echo(f"{count} {code}")


@memory.command()
def sweep(state_dir: StateDir = HERE) -> None:
    """Drop what has expired, of every tenant."""
    from airside.cli import attached

    with attached(state_dir) as stack:
        typer.echo(f"{stack.memory.sweep()} records dropped")


@memory.command()
def calibrate(
    data: Annotated[
        list[Path],
        typer.Option(
            parser=path_of,
            help="questions whose answers are known, as JSONL: benchmarks/data/README.md; repeatable, a file a kind",
        ),
    ],
    model: Annotated[
        str, typer.Option(help="a sentence-transformers model, by name or path; default: the bundled")
    ] = "",
    state_dir: StateDir = HERE,
) -> None:
    """Fit what an embedder's scores mean, for this state directory's stack; it holds from the next start."""
    from airside.memory.embedders.embedder import SentenceTransformerEmbedder
    from airside.memory.evaluation.question_sets import calibrated
    from airside.memory.search.calibration import save_calibration

    embedder = SentenceTransformerEmbedder(model or None)
    fitted = calibrated(data, embedder, embedder.name)
    place = save_calibration(fitted, state_dir / "memory" / "calibrations")
    typer.echo(f"{place}: {fitted.questions} questions, calibration error {fitted.error}, gate {fitted.gate}")


def _there_was(is_there: bool, record_id: str) -> None:
    if not is_there:
        raise Misuse(f"{record_id or 'no id'}: there is no such record, or it is not in the state for that")


def _day(at_us: int) -> str:
    return "for ever" if at_us > 2**61 else datetime.fromtimestamp(at_us / 1e6, UTC).date().isoformat()
