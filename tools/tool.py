"""Declaring tools: `@tool` on a typed function, `Tool.from_schema` for one described by JSON Schema, `Toolset`.

A function may take a parameter annotated `ToolContext`; it is not an argument of the call but what the executor
gives the tool: the idempotency key, who calls for whom, the deadline, and the toolset's state for the run.
"""

from __future__ import annotations

import inspect
import json
import math
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol, overload, runtime_checkable

from airside.stack.calling import explain_misuse, wrong_call
from airside.stack.contracts.memory import Candidate, LearnReply
from airside.stack.errors import AirsideError, InvalidConfig
from airside.stack.ids import EffectKey, PrincipalId, RunId, TenantId
from airside.stack.resources import Declared, checked_resources
from airside.stack.run.calls import MAX_SENDS
from airside.stack.schema.choices import Declared as DeclaredChoices
from airside.stack.schema.choices import checked_choices
from airside.stack.schema.schemas import read_schema
from airside.stack.schema.toolspec import MAX_ARGUMENT_BYTES, MAX_OUTPUT_BYTES, Place, ToolSpec, certain_parts
from airside.stack.values import Answer, Declined, EffectClass, Lane, Risk
from airside.tools.sandbox.limits import SandboxLimits
from airside.tools.secrets.known import Secrets
from airside.tools.secrets.providers import checked_names
from airside.tools.signature import Derived, Signature, derive, read_signature, refuse_generator

_NAME_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-")


class ToolError(AirsideError):
    """Raise it in a tool to say: nothing was changed under this idempotency key, by this attempt or an earlier one.

    The agent is shown the message and the run goes on.  An idempotent tool therefore looks its key up before it
    raises.  Any other exception from a tool that changes something leaves the call in doubt.

    `ToolError(message, retry_after_s=2)` says that it may go well in so many seconds; without, that it never will.
    """

    @property
    def retry_after_s(self) -> float | None:
        """In how many seconds it may go well; None: it will not."""
        seconds = self.details.get("retry_after_s")
        if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds < math.inf:
            return None
        return float(seconds)


class InDoubt(AirsideError):
    """Raise it in a tool to say: the call may or may not have happened."""


def unanswered(error: AirsideError) -> bool:
    """Whether what a tool raised says that whatever it asked did not answer; its circuit breaker counts that."""
    return error.details.get("unanswered") is True


_MAX_CACHE_S = 86_400

_NO_CHOICES: DeclaredChoices = {}

Keep = Callable[[Candidate], Awaitable[LearnReply]]


@dataclass(frozen=True, slots=True, kw_only=True)
class AskedBefore:
    """What a tool asked people in the round before this one, as JSON, and what it kept for now.

    `declined` says that nobody answers; else the context has the answer.
    """

    round: int
    question: bytes
    kept: bytes
    declined: Declined = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolContext:
    """What the executor gives a tool.  `deadline_s` is how long the call may take; `state` is the toolset's.

    `secrets` are the tenant's, by the names that the tool declares: nothing that the tool returns, raises or prints
    shows one.  `labels` are what the run had taken in when the call was granted; `answer` is what a person answered, of
    a call that is a question; `asked` is what the tool asked before, of a call that goes on; `keep` offers the stack's
    memory a candidate (None where there is no memory, or the tool has a process of its own).

    Use `idempotency_key` so that the same key never has its effect twice; every attempt of a call has the same one.
    `attempt` counts how often it was sent, from 1.
    """

    tenant: TenantId
    principal: PrincipalId
    run_id: RunId
    step: int
    attempt: int
    idempotency_key: EffectKey
    approval_id: str
    deadline_s: float
    traceparent: str = ""
    state: Any = None
    secrets: Secrets = field(default_factory=Secrets, repr=False)
    labels: tuple[str, ...] = ()
    answer: Answer | None = None
    asked: AskedBefore | None = None
    keep: Keep | None = field(default=None, repr=False)

    @property
    def original_key(self) -> EffectKey:
        """In an undo the key of the call that is taken back; in a call its own."""
        return EffectKey(self.idempotency_key.removesuffix("/undo"))


Reconcile = Callable[[ToolContext], Any]
Undo = Callable[[ToolContext, dict[str, Any], Any], Any]


@explain_misuse()
@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessLimits:
    """What the process of one call may use: so many processes in all, and so much address space (0: any)."""

    processes: int = 32
    memory_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Tool:
    """A tool: its spec, which policy sees, and its code, which only executors run.

    `reconcile(context)` is asked before a call is sent again: it returns the result the key already had, or
    `NOT_DONE`.  `convert` turns validated JSON arguments into the function's keyword arguments.  With `process`, every
    call has a process of its own, which can be ended whatever it does, with `sandbox` one that reaches nothing of the
    machine's; else it shares the executor's.

    `undo(context, arguments, output)` takes back what one call did, which had these arguments and this output (both
    JSON).  It has a key of its own, which an idempotent tool's undo looks at too; `ToolError` says that it changed
    nothing, any other exception leaves it in doubt.
    """

    spec: ToolSpec
    function: Callable[..., Any]
    convert: Callable[[dict[str, Any]], dict[str, Any]]
    context_parameter: str | None = None
    reconcile: Reconcile | None = None
    process: ProcessLimits | None = None
    toolset: str | None = None
    undo: Undo | None = None
    secrets: tuple[str, ...] = ()
    sandbox: SandboxLimits | None = None
    cache_ms: int = 0
    retries: int = 0

    @property
    def name(self) -> str:
        """The tool's name."""
        return self.spec.name

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function directly: for its own tests; nothing is governed."""
        return self.function(*args, **kwargs)

    def __repr__(self) -> str:
        return f"Tool({self.spec.name}, {self.spec.effect}, {self.spec.version})"

    @classmethod
    @explain_misuse("Tool.from_schema", how="Tool.from_schema(name, json_schema, fn, effect='read')")
    def from_schema(
        cls,
        name: str,
        json_schema: Mapping[str, Any],
        fn: Callable[..., Any],
        *,
        effect: EffectClass,
        idempotent: bool = False,
        timeout: float = 30.0,
        scopes: Iterable[str] = (),
        description: str = "",
        risk: Risk | None = None,
        cost_microusd: int | None = None,
        reconcile: Reconcile | None = None,
        process: ProcessLimits | bool = False,
        sandbox: SandboxLimits | bool = False,
        undo: Undo | None = None,
        max_argument_bytes: int = MAX_ARGUMENT_BYTES,
        max_output_bytes: int = MAX_OUTPUT_BYTES,
        content: Iterable[str] = (),
        trusted_output: bool = False,
        memorable: bool = False,
        resource: Declared = (),
        choices: DeclaredChoices = _NO_CHOICES,
        secrets: Iterable[str] = (),
        cache_s: float = 0.0,
        retries: int = 0,
    ) -> Tool:
        """Make a tool of a JSON Schema and a function that takes its properties as keyword arguments.

        Raises `InvalidConfig` if the schema is not one of an object, or not valid, if `content` or `choices` names what
        is none of its arguments, or if the function would not get what was decided on.
        """
        signature = read_signature(fn, checked_name(name), ToolContext)
        limits, sandboxed = _checked_process(name, process), _checked_sandbox(name, sandbox, process)
        spec = ToolSpec.build(
            name=name,
            description=description or inspect.getdoc(fn) or "",
            effect=_checked_effect(name, effect),
            risk=risk,
            parameters=_reaching(read_schema(json_schema, f"tool {name}"), signature),
            scopes=tuple(scopes),
            repeatable=idempotent or _checked_reconcile(name, reconcile),
            timeout_ms=_milliseconds(name, timeout),
            cost_microusd=_microusd(name, cost_microusd),
            max_argument_bytes=max_argument_bytes,
            max_output_bytes=max_output_bytes,
            undoable=_checked_undo(name, effect, undo),
            content=_paths(name, content),
            trusted_output=trusted_output,
            memorable=memorable,
            resources=checked_resources(name, resource),
            choices=checked_choices(name, choices),
            lane=_lane(limits, sandboxed),
        )
        given = checked_names(f"tool {name}", secrets)
        convert = json_schema.convert if isinstance(json_schema, Derived) else _as_given
        if not isinstance(json_schema, Derived):
            _check_function(spec, signature)
        return cls(
            spec,
            fn,
            convert,
            signature.context,
            reconcile,
            limits,
            undo=undo,
            secrets=given,
            sandbox=sandboxed,
            cache_ms=_checked_cache(name, effect, cache_s),
            retries=_checked_retries(name, retries, repeatable=effect == "read" or spec.repeatable),
        )


def _as_given(arguments: dict[str, Any]) -> dict[str, Any]:
    return arguments


class _NotDone:
    """The answer of a reconcile hook that knows that the key was never used."""

    def __repr__(self) -> str:
        return "NOT_DONE"


NOT_DONE = _NotDone()


_OF_TOOL = inspect.Signature(
    [inspect.Parameter("name", inspect.Parameter.KEYWORD_ONLY, default=None)]
    + [
        parameter.replace(default=None)
        for parameter in inspect.signature(Tool.from_schema).parameters.values()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    ]
)
"""What `@tool` may be given; that `effect` is missing is said with more words."""


@overload
def tool(function: Callable[..., Any], /) -> Tool: ...
@overload
def tool(
    *,
    effect: EffectClass,
    name: str | None = ...,
    idempotent: bool = ...,
    timeout: float = ...,
    scopes: Iterable[str] = ...,
    description: str | None = ...,
    risk: Risk | None = ...,
    cost_microusd: int | None = ...,
    reconcile: Reconcile | None = ...,
    process: ProcessLimits | bool = ...,
    sandbox: SandboxLimits | bool = ...,
    undo: Undo | None = ...,
    max_argument_bytes: int = ...,
    max_output_bytes: int = ...,
    content: Iterable[str] = ...,
    trusted_output: bool = ...,
    memorable: bool = ...,
    resource: Declared = ...,
    choices: DeclaredChoices = ...,
    secrets: Iterable[str] = ...,
    cache_s: float = ...,
    retries: int = ...,
) -> Callable[[Callable[..., Any]], Tool]: ...
def tool(function: Callable[..., Any] | None = None, /, **options: Any) -> Any:
    """Make a tool of a typed function; its JSON Schema comes from the annotations, its description from the docstring.

    `effect` is required: read, write, external or irreversible.  `idempotent` promises that the same idempotency key
    never has its effect twice.  `timeout` is in seconds; `scopes` are what a principal must hold to see the tool.
    `process` gives every call a process of its own, which is killed at the deadline with all it started (`True`, or its
    `ProcessLimits`); a function without it shares the executor's process and cannot be stopped while it does not yield.
    `sandbox` gives every call a sandbox of its own, used once, that reaches nothing of the machine's (`True`, or its
    `SandboxLimits`); the function goes there with what it names of its module, and imports the packages it uses.
    `content` names the arguments (dotted, `*` for every item) that only say something; every other carries authority,
    so that policy can ask where its value comes from.  `trusted_output` says that no outsider writes what it returns.
    `memorable` offers what it returns to memory, which keeps what is worth it (trusted little, unless the former).
    `resource` names what the call is about, as a pair of a kind and an argument, or a list of pairs (paths as in
    `content`): policy asks the app's resolver of the kind whose it is.
    `choices` says in which words a request picks a value of an argument: `{"permission": {"r": ["read", "view"]}}`.
    `secrets` names those of the tenant's that the tool gets, as `context.secrets[name]`.
    `retries` is how often a call is sent again that ended with a `ToolError` which says after how many seconds.
    `cache_s` is how long what a read returned may be its result again, for the same principal and arguments.
    Raises `InvalidConfig` for a parameter without a type, or one JSON cannot carry.
    """
    wrong = wrong_call("@tool", _OF_TOOL, (), options, how="@tool(effect='read')")
    if function is None and wrong is not None:
        raise wrong
    if function is not None or "effect" not in options:
        raise InvalidConfig("@tool needs to know what the tool does: @tool(effect='read' | 'write' | 'external' | ...)")

    def wrap(fn: Callable[..., Any]) -> Tool:
        name = options.get("name") or getattr(fn, "__name__", None)
        if name is None:
            raise InvalidConfig(f"@tool: {fn!r:.80} has no name of its own: give @tool(name=...)")
        schema = derive(read_signature(fn, name, ToolContext), name)
        return Tool.from_schema(name, schema, fn, **{key: value for key, value in options.items() if key != "name"})

    return wrap


@explain_misuse(how="Toolset(name, tools=[...], open=...)")
@dataclass(frozen=True, slots=True)
class Toolset:
    """Tools that share a state: `open(context)` makes it at the first call, `close(state)` ends it.

    Each run has a state of its own, until it is over.  With `lifetime="executor"` a tenant's runs share one in each
    executor, as they would a client or a server's process, until it was not used for some minutes; it is opened by
    whichever call comes first, of whose context the tenant alone counts.  All of a run's calls go to one executor;
    after that one's death the next opens a state anew, so what must outlive a process belongs in a file or a database.

    `offers(state)`, a plain function that is quick, says which tools there are at present, where that is not the app's
    to say.  It is asked before each call: one whose tool is not among them, exactly as policy was checked with it, is
    not begun.  Should it raise, the state is closed, and another one opened by the next call.

    `secrets` names those of the tenant's that `open` gets; each call has its own tool's.
    """

    name: str
    tools: tuple[Tool, ...]
    open: Callable[[ToolContext], Any]
    close: Callable[[Any], Any] = field(default=lambda state: None)
    lifetime: Literal["run", "executor"] = "run"
    offers: Callable[[Any], Iterable[Tool]] | None = None
    secrets: tuple[str, ...] = ()


@runtime_checkable
class ToolSource(Protocol):
    """What knows its tools once an app is checked: of a file, say."""

    def read_toolset(self) -> Toolset:
        """Return the tools; raise `InvalidConfig` if they cannot be known."""
        ...


def read_sources(items: Iterable[Tool | Toolset | ToolSource]) -> list[Tool | Toolset]:
    """Return tools and toolsets, those of sources among them."""
    return [item.read_toolset() if isinstance(item, ToolSource) else item for item in items]


def _how_to_make(item: object) -> str:
    if isinstance(item, list | tuple):
        return "it is several: put them in one by one, as *them"
    if getattr(item, "__module__", "").startswith("airside."):
        return "it makes tools: call it"
    return "decorate it with @tool(...)"


def flatten(items: Iterable[Tool | Toolset | ToolSource]) -> tuple[dict[str, Tool], dict[str, Toolset]]:
    """Return tools and toolsets by name; raise `InvalidConfig` for a name given twice."""
    tools: dict[str, Tool] = {}
    toolsets: dict[str, Toolset] = {}
    for item in read_sources(items):
        if isinstance(item, Toolset):
            toolsets[item.name] = item
            if item.lifetime not in ("run", "executor"):
                raise InvalidConfig(f"toolset {item.name}: lifetime {item.lifetime!r:.80} is not 'run' or 'executor'")
            checked_names(f"toolset {item.name}", item.secrets)
            alone = [t.name for t in item.tools if t.spec.lane != "shared"]
            if alone:
                raise InvalidConfig(f"toolset {item.name}: {alone[0]} cannot share a state from a process of its own")
            cached = [t.name for t in item.tools if t.cache_ms]
            if cached and (item.lifetime == "run" or item.offers is not None):
                why = "is the run's own" if item.lifetime == "run" else "says what it offers before each call"
                raise InvalidConfig(f"toolset {item.name}: {cached[0]} cannot have cache_s: its state {why}")
            members = [replace(t, toolset=item.name) for t in item.tools]
        elif isinstance(item, Tool):
            members = [item]
        else:
            raise InvalidConfig(f"tools: {item!r:.80} is neither a Tool nor a Toolset; {_how_to_make(item)}")
        for member in members:
            if member.name in tools:
                raise InvalidConfig(f"tools: the name {member.name!r} is given twice")
            tools[member.name] = member
    return tools, toolsets


def _reaching(schema: dict[str, Any], signature: Signature) -> dict[str, Any]:
    """Return the schema without arguments that it leaves open and that would not reach the function."""
    place = Place(schema)
    if place.is_free and not signature.takes_any and any("type" in part for part in certain_parts(schema)):
        return {**schema, "additionalProperties": False}
    if place.takes_others and signature.context is not None:
        return {**schema, "allOf": [*schema.get("allOf", []), {"propertyNames": {"not": {"const": signature.context}}}]}
    return schema


def _check_function(spec: ToolSpec, signature: Signature) -> None:
    """Raise `InvalidConfig` if what is decided on would not reach the function."""
    context = signature.context
    place = spec.place
    if context is not None and place.is_named(context):
        raise InvalidConfig(f"tool {spec.name}: {context!r} is an argument and the function's ToolContext: rename one")
    if place.takes_others and not signature.takes_any:
        raise InvalidConfig(f"tool {spec.name}: its schema takes arguments of any name, its function none by **")
    missing = sorted(name for name in place.names if not signature.takes(name))
    if missing:
        raise InvalidConfig(
            f"tool {spec.name}: its function takes no {missing[0]!r}, which is an argument of its schema"
        )


def checked_name(name: str) -> str:
    """Return a tool's name; raise `InvalidConfig` for what can be none."""
    if not name or len(name) > 128 or not set(name) <= _NAME_CHARACTERS:
        raise InvalidConfig(f"tool name {name!r:.140}: use up to 128 letters, digits, '_', '.' and '-'")
    return name


def _checked_effect(name: str, effect: str) -> str:
    if effect not in ("read", "write", "external", "irreversible"):
        raise InvalidConfig(f"tool {name}: effect {effect!r} is not read, write, external or irreversible")
    return effect


def _checked_reconcile(name: str, reconcile: Reconcile | None) -> bool:
    if reconcile is not None:
        refuse_generator(reconcile, f"tool {name}: reconcile")
    return reconcile is not None


def _checked_undo(name: str, effect: str, undo: Undo | None) -> bool:
    if undo is None:
        return False
    if effect == "read":
        raise InvalidConfig(f"tool {name}: there is nothing to undo in a read")
    if not callable(undo) or len(_undo_parameters(undo)) != 3:
        raise InvalidConfig(f"tool {name}: undo {undo!r:.80} does not take (context, arguments, output)")
    refuse_generator(undo, f"tool {name}: undo")
    return True


def _undo_parameters(undo: Undo) -> list[str]:
    by_name = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    try:
        parameters = inspect.signature(undo).parameters
    except (TypeError, ValueError):
        return []
    return [name for name, parameter in parameters.items() if parameter.kind in by_name]


def as_undo(found: Tool, output: bytes) -> Tool:
    """Return the undo of a tool's call as a tool, so that it is carried out under the same rules as a call.

    Its arguments are the call's, as JSON, beside the call's output.  `reconcile` speaks of the call's key alone.
    """
    assert found.undo is not None
    context, arguments, result = _undo_parameters(found.undo)

    def convert(given: dict[str, Any]) -> dict[str, Any]:
        return {arguments: given, result: json.loads(output)}

    return replace(found, function=found.undo, convert=convert, context_parameter=context, reconcile=None)


def _paths(name: str, content: Iterable[str]) -> tuple[str, ...]:
    if isinstance(content, str):
        raise InvalidConfig(f"tool {name}: content {content!r:.80} is a text; give a tuple of arguments")
    return tuple(sorted(set(content)))


def _checked_retries(name: str, retries: int, *, repeatable: bool) -> int:
    if isinstance(retries, bool) or not isinstance(retries, int) or not 0 <= retries < MAX_SENDS:
        raise InvalidConfig(f"tool {name}: retries {retries!r:.80} is not a whole number from 0 to {MAX_SENDS - 1}")
    if retries and not repeatable:
        raise InvalidConfig(f"tool {name}: retries are for reads, and for what is idempotent=True or has a reconcile")
    return retries


def _checked_cache(name: str, effect: str, seconds: float) -> int:
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds <= _MAX_CACHE_S:
        raise InvalidConfig(f"tool {name}: cache_s {seconds!r:.80} is not between 0 and {_MAX_CACHE_S:,} seconds")
    if seconds and effect != "read":
        raise InvalidConfig(f"tool {name}: cache_s is for reads: a call that changes something is made each time")
    return int(seconds * 1000)


def _checked_process(name: str, process: ProcessLimits | bool) -> ProcessLimits | None:
    if not isinstance(process, ProcessLimits | bool):
        raise InvalidConfig(f"tool {name}: process {process!r:.80} is neither True nor a ProcessLimits(...)")
    return ProcessLimits() if process is True else process or None


def _checked_sandbox(name: str, sandbox: SandboxLimits | bool, process: ProcessLimits | bool) -> SandboxLimits | None:
    if not isinstance(sandbox, SandboxLimits | bool):
        raise InvalidConfig(f"tool {name}: sandbox {sandbox!r:.80} is neither True nor a SandboxLimits(...)")
    if sandbox and process:
        raise InvalidConfig(f"tool {name}: a sandbox is a process of its own: give it sandbox, without process")
    return SandboxLimits() if sandbox is True else sandbox or None


def _lane(process: ProcessLimits | None, sandbox: SandboxLimits | None) -> Lane:
    if sandbox is not None:
        return "sandbox"
    return "shared" if process is None else "process"


def _milliseconds(name: str, seconds: float) -> int:
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0.001 <= seconds <= 86_400:
        raise InvalidConfig(f"tool {name}: timeout {seconds!r} is not between 0.001 and 86,400 seconds")
    return int(seconds * 1000)


def _microusd(name: str, cost: int | None) -> int | None:
    if cost is not None and (type(cost) is not int or cost < 0):
        raise InvalidConfig(f"tool {name}: cost_microusd {cost!r} is not a whole number of at least 0")
    return cost
