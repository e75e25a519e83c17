"""An app: what a stack runs.  Agents, the routes between them, tools, policy, and the directory of who may ask."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from airside.actors.approvals.notifier import OnApproval
from airside.actors.http_settings import HttpServer
from airside.actors.job_inputs import schema_of
from airside.actors.jobs import OWN_FIELDS
from airside.actors.models.prices import batch_rates_of, endpoints_of, rates_of
from airside.actors.pickling import check_picklable
from airside.memory.embedders.embedder import Embedder, SentenceTransformerEmbedder
from airside.memory.rules import MemoryRules
from airside.stack.budget.reservations import DECISION_UNITS
from airside.stack.calling import explain_misuse
from airside.stack.canonical import canonical, digest
from airside.stack.contracts.labels import check_label
from airside.stack.cycle.agent_call import code_of
from airside.stack.directory import Directory, read_directory
from airside.stack.errors import InvalidConfig, InvalidInput, plain
from airside.stack.models.agent import AsksModels, ModelAgent
from airside.stack.models.endpoints import ModelEndpoint
from airside.stack.models.extractor import FactExtractor
from airside.stack.policy.approvers import find_unapprovable
from airside.stack.policy.bundle import read_bundle
from airside.stack.policy.never_allowed import find_never_allowed
from airside.stack.policy.policy_check import check_directory, check_policy
from airside.stack.policy.pricing import unaffordable, unpriced
from airside.stack.run.agents import Agent, FunctionAgent, price_of
from airside.stack.run.extraction import EXTRACTOR
from airside.stack.run.gateway_call import GATEWAY, GatewayAgent
from airside.stack.run.topology import SingleAgent, Topology
from airside.stack.schema.toolspec import ToolSpec
from airside.tools.builtin.python_code import python_code
from airside.tools.resolving import Resolver, checked_resolvers
from airside.tools.secrets.providers import SecretsProvider, checked_provider, unset
from airside.tools.signature import refuse_async, refuse_generator, refuse_misfit
from airside.tools.tool import Tool, Toolset, ToolSource, flatten, read_sources

_MAX_REPR = 500


@explain_misuse()
@dataclass(frozen=True, kw_only=True, repr=False)
class App:
    """What a stack runs.

    `agents` are objects with `decide(view)`, or functions `view -> proposal`.  `routes` default to the only
    agent, as `default`.  `policy` and `directory` are YAML files (a `Path`) or YAML text; a directory may also be
    built in code.  There is no stack without a policy.  `memory` = recall before every decision, by the
    rules it gives (`True`: the default ones).  `job_inputs` is a
    Pydantic model of the further fields a line of a jobs file may have, which become the request's inputs.
    `on_approval` is a function that is called in a thread of the Approvals process, with the notice as a dictionary,
    when a call begins to wait for people and when it is decided; after a restart again.  What it raises is logged.
    `labels` are those that requests may have and rules ask for, beside the stack's own (`stack/contracts/labels.py`);
    None: any. `resolvers` say, for each kind of resource that tools declare, whose a resource is and what rules may ask
    about it: functions `(id, context)`, or what `resolver` of `airside.resources` makes of one.
    `models` are endpoints by the names under which agents ask them, beside those like `openai:NAME`.
    `secrets` says what the secrets of tenants are that tools declare: `EnvironmentSecrets` or `FileSecrets` of
    `airside.tools`, or anything with a `secret(tenant, name)`.
    `gateway` = the app's tools may be called from outside (`airside mcp serve`), each call as a run of its own.
    `http` = the stack serves its HTTP API and console by itself; where, an `HttpServer` of `airside.http` says.
    `extractor` is a model that is asked for facts of each run that is done, which memory may keep.
    """

    agents: Mapping[str, Agent | Callable[..., Any]]
    tools: Sequence[Tool | Toolset | ToolSource]
    policy: Path | str
    directory: Directory | Path | str
    routes: Mapping[str, Topology] = field(default_factory=dict)
    memory: bool | MemoryRules = False
    embedder: Callable[[], Embedder] = SentenceTransformerEmbedder
    version: str = "1"
    job_inputs: type[BaseModel] | None = None
    on_approval: OnApproval | None = None
    labels: Collection[str] | None = None
    resolvers: Mapping[str, Resolver | Callable[..., Any]] = field(default_factory=dict)
    models: Mapping[str, ModelEndpoint] = field(default_factory=dict)
    secrets: SecretsProvider | None = None
    gateway: bool = False
    extractor: FactExtractor | None = None
    http: bool | HttpServer = False

    def __repr__(self) -> str:
        """Return its agents and tools by their names, as a cell shows it: all of it would be pages."""
        agents, tools = ", ".join(_names(self.agents)), ", ".join(_names(self.tools))
        return plain(f"App(agents: {agents}; tools: {tools}; version: {self.version})", _MAX_REPR)

    def checked(self) -> ValidatedApp:
        """Return the app with everything loaded and cross-checked; raise `InvalidConfig` saying what is wrong."""
        _check_callback(self.on_approval)
        _check_kinds(self)
        agents = {name: _agent(name, agent) for name, agent in self.agents.items()}
        routes = dict(self.routes) or _only_route(agents)
        agents = _with_extractor(self, agents)
        endpoints, agents = _priced(self.models, agents)
        if self.gateway:
            agents, routes = _with_gateway(agents, routes)
        for name, topology in routes.items():
            missing = [agent for agent in topology.agents() if agent not in agents]
            if missing:
                raise InvalidConfig(f"route {name}: no agent {missing[0]!r}; there are {sorted(agents)}")
        own_tools = read_sources(self.tools)
        tools, toolsets = flatten(own_tools)
        _check_model_agents(agents, tools)
        if not tools:
            raise InvalidConfig("the app has no tools: give App(tools=[...]) at least one")
        policy, rules_at = read_bundle(self.policy)
        bundle = self.policy.read_text(encoding="utf-8") if isinstance(self.policy, Path) else self.policy
        directory, entries_at = (
            (self.directory, None) if isinstance(self.directory, Directory) else read_directory(self.directory)
        )
        specs = [tool.spec for tool in tools.values()]
        labels = _labels(self.labels)
        resolvers = checked_resolvers(self.resolvers, specs)
        terms = {kind: resolver.terms for kind, resolver in resolvers.items()}
        check_policy(policy, specs, directory, labels=labels, resolvers=terms, place=rules_at.at)
        check_directory(directory, specs, place=entries_at.at if entries_at else lambda _: "directory")
        declared = {f"tool {name}": tool.secrets for name, tool in tools.items()}
        declared |= {f"toolset {name}": tuple(toolset.secrets) for name, toolset in toolsets.items()}
        secrets = checked_provider(self.secrets, declared, directory.tenants)
        job_schema = schema_of(self.job_inputs, OWN_FIELDS)
        sent = list(_sent(self, agents, routes, tools, toolsets, resolvers))
        _check_code(sent)
        _check_calls(self, agents, routes, tools, toolsets)
        check_picklable(sent)
        return ValidatedApp(
            app=replace(self, tools=own_tools),
            agents=agents,
            routes=routes,
            specs=specs,
            bundle=bundle,
            policy_version=policy.version,
            metered=directory.metered(DECISION_UNITS),
            directory=directory,
            memory=_memory_rules(self.memory),
            labels=labels,
            resolvers=resolvers,
            warnings=(
                *unpriced(directory, specs, agents),
                *unaffordable(directory, agents),
                *find_unapprovable(policy, directory, specs),
                *unset(secrets),
            ),
            denied=find_never_allowed(policy, directory, specs),
            job_schema=job_schema,
            endpoints=endpoints,
            secrets=secrets,
            http=_http_server(self.http),
        )


@dataclass(frozen=True, kw_only=True)
class ValidatedApp:
    """An app that holds together.

    `metered` are the tenants whose runs share a budget of what decisions use; `warnings` say what is known now to be
    refused later, `denied` the tools that principals can never call.  `job_schema` is that of `job_inputs`.
    """

    app: App
    agents: Mapping[str, Agent]
    routes: Mapping[str, Topology]
    specs: Sequence[ToolSpec]
    bundle: str
    policy_version: str
    metered: frozenset[str]
    directory: Directory
    memory: MemoryRules | None
    labels: frozenset[str] | None
    resolvers: Mapping[str, Resolver]
    job_schema: dict[str, Any] | None
    endpoints: Mapping[str, ModelEndpoint]
    secrets: SecretsProvider | None = None
    http: HttpServer | None = None
    warnings: tuple[str, ...] = ()
    denied: Mapping[str, Mapping[str, Sequence[str]]] = field(default_factory=dict)

    def described(self) -> dict[str, Any]:
        """Return what its runs depend on, to be compared: app version, policy (a digest), models, agents, routes.

        Of models it is who answers, and not at what rate; of agents that are models, a digest of how they ask.
        `priced` are the agents and tools that cost anything, by what they name: where there are none, no run does.
        """
        costs = {f"agent {name}": price_of(agent) for name, agent in self.agents.items()}
        return {
            "app_version": self.app.version,
            "policy": digest(self.bundle.encode())[:16],
            "policy_version": self.policy_version,
            "models": {
                **{f"model {name}": endpoint.described() for name, endpoint in self.endpoints.items()},
                **{
                    f"agent {name}": digest(canonical(agent.described()))[:16]
                    for name, agent in self.agents.items()
                    if isinstance(agent, ModelAgent)
                },
            },
            "routes": sorted(self.routes),
            "priced": sorted(
                [name for name, price in costs.items() if price is not None and price.cost_microusd]
                + [f"tool {spec.name}" for spec in self.specs if spec.cost_microusd]
            ),
        }


def _names(given: object) -> Iterator[str]:
    """Yield what agents or tools are called; of what is none, which nobody has checked yet, its type."""
    for each in given if isinstance(given, Iterable) else (given,):
        yield each if isinstance(each, str) else str(getattr(each, "name", type(each).__name__))


def _priced(named: object, agents: Mapping[str, Agent]) -> tuple[dict[str, ModelEndpoint], dict[str, Agent]]:
    """Return the endpoints of all models that may be asked, and the agents with what their decisions can cost.

    Raises `InvalidConfig` for a model that nobody knows, or whose price nobody knows.
    """
    if not isinstance(named, Mapping):
        raise InvalidConfig(f"models: {named!r:.80} is not a mapping: give App(models={{name: ModelEndpoint(...)}})")
    asking = {name: agent for name, agent in agents.items() if isinstance(agent, AsksModels)}
    endpoints = endpoints_of(named, [model for agent in asking.values() for model in agent.models])
    rates = {}
    for name, endpoint in endpoints.items():
        try:
            rates[name] = rates_of(endpoint)
        except InvalidConfig as error:
            raise InvalidConfig(f"model {name}: {error.message}") from None
    batches = {name: batch_rates_of(endpoint) or rates[name] for name, endpoint in endpoints.items()}
    priced = {name: agent.priced_by(rates) for name, agent in asking.items()}
    batched = {name: agent.batched_by(batches) for name, agent in priced.items() if isinstance(agent, ModelAgent)}
    return endpoints, {**agents, **priced, **batched}


def _check_model_agents(agents: Mapping[str, Agent], tools: Mapping[str, Tool]) -> None:
    """Raise `InvalidConfig` for an agent that asks models and does not fit the app's tools and agents, and for code
    mode without its tool.
    """
    for name, agent in agents.items():
        if isinstance(agent, AsksModels):
            try:
                agent.check({tool: of.spec for tool, of in tools.items()}, agents)
                if isinstance(agent, ModelAgent):
                    _check_code_mode(agent, tools)
            except InvalidConfig as error:
                raise InvalidConfig(f"agent {name}: {error.message}") from None


def _check_code_mode(agent: ModelAgent, tools: Mapping[str, Tool]) -> None:
    found = tools.get(python_code.name)
    if found is not None and found.spec != python_code.spec:
        raise InvalidConfig(f"a tool is called {found.name}, which is what code mode begins by: rename the tool")
    if agent.code_mode and found is None:
        raise InvalidConfig(
            "code_mode needs the tool that snippets begin by: "
            "from airside.tools import python_code, and App(tools=[..., python_code])"
        )


def _sent(
    app: App,
    agents: Mapping[str, Agent],
    routes: Mapping[str, Topology],
    tools: Mapping[str, Tool],
    toolsets: Mapping[str, Toolset],
    resolvers: Mapping[str, Resolver],
) -> Iterator[tuple[str, Any]]:
    """Yield, with its name, everything of an app that is sent to other processes."""
    for name, agent in agents.items():
        yield f"agent {name}", agent.function if isinstance(agent, FunctionAgent) else agent
    for name, topology in routes.items():
        yield f"route {name}", topology
    for name, tool in tools.items():
        yield f"tool {name}", tool.function
        yield f"tool {name}: reconcile", tool.reconcile
        yield f"tool {name}: undo", tool.undo
        yield f"tool {name}", tool
    for name, toolset in toolsets.items():
        yield f"toolset {name}: open", toolset.open
        yield f"toolset {name}: close", toolset.close
        yield f"toolset {name}: offers", toolset.offers
    for kind, resolver in resolvers.items():
        yield f"resolver of {kind}", resolver.function
    yield "embedder", app.embedder
    yield "job_inputs", app.job_inputs
    yield "on_approval", app.on_approval
    yield "secrets", app.secrets


def _check_code(parts: Iterable[tuple[str, Any]]) -> None:
    """Raise `InvalidConfig` for a generator, which nobody takes anything from, and for a topology that waits."""
    for name, part in parts:
        for code in (part, getattr(part, "decide", None), getattr(part, "next_step", None)):
            if callable(code):
                refuse_generator(code, name)
        if hasattr(part, "next_step"):
            refuse_async(part.next_step, name)


def _check_calls(
    app: App,
    agents: Mapping[str, Agent],
    routes: Mapping[str, Topology],
    tools: Mapping[str, Tool],
    toolsets: Mapping[str, Toolset],
) -> None:
    """Raise `InvalidConfig` for what does not take what it is going to be called with."""
    for name, agent in agents.items():
        if isinstance(agent, type):
            raise InvalidConfig(
                f"agent {name}: {agent.__name__} is a class: give an object of it, {agent.__name__}() say"
            )
        refuse_misfit(code_of(agent), f"agent {name}", "view")
    for name, topology in routes.items():
        refuse_misfit(topology.next_step, f"route {name}: next_step", "state")
    for name, tool in tools.items():
        if tool.reconcile is not None:
            refuse_misfit(tool.reconcile, f"tool {name}: reconcile", "context")
    for name, toolset in toolsets.items():
        refuse_misfit(toolset.open, f"toolset {name}: open", "context")
        refuse_misfit(toolset.close, f"toolset {name}: close", "state")
        if toolset.offers is not None:
            refuse_async(toolset.offers, f"toolset {name}: offers")
            refuse_misfit(toolset.offers, f"toolset {name}: offers", "state")
    refuse_misfit(app.embedder, "embedder")
    if app.secrets is not None:
        refuse_async(app.secrets.secret, "secrets: secret")
        refuse_misfit(app.secrets.secret, "secrets: secret", "tenant", "name")
    if app.on_approval is not None:
        refuse_misfit(app.on_approval, "on_approval", "notice")


def _labels(declared: object) -> frozenset[str] | None:
    """Return the labels an app declares, tidy; None if it declares none."""
    if declared is None:
        return None
    if isinstance(declared, str) or not isinstance(declared, Collection):
        raise InvalidConfig(f"labels: {declared!r:.80} is not a list: give App(labels=[...])")
    for label in declared:
        try:
            tidy = check_label(label) if isinstance(label, str) else ""
        except InvalidInput as error:
            raise InvalidConfig(f"labels: {error.message}") from None
        if tidy != label:
            raise InvalidConfig(f"labels: {label!r:.80} is none: " + (f"write {tidy!r}" if tidy else "a label is text"))
    return frozenset(declared)


def _check_kinds(app: App) -> None:
    """Raise `InvalidConfig` for what is of another kind than the field takes."""
    for name, what in (("agents", "{name: agent}"), ("routes", "{name: topology}")):
        if not isinstance(getattr(app, name), Mapping):
            raise InvalidConfig(f"{name}: {getattr(app, name)!r:.80} is not a mapping: give App({name}={what})")
    if not isinstance(app.policy, str | Path):
        kind = type(app.policy).__name__
        raise InvalidConfig(f"policy: {kind:.40} is no policy: give the YAML's text, or a Path of its file")
    if not isinstance(app.directory, str | Path | Directory):
        kind = type(app.directory).__name__
        raise InvalidConfig(f"directory: {kind:.40} is no directory: give a Directory, YAML's text, or a Path of it")
    if type(app.gateway) is not bool:
        raise InvalidConfig(f"gateway: {app.gateway!r:.80} is neither True nor False")
    if isinstance(app.tools, str | Tool | Toolset | ToolSource) or not isinstance(app.tools, Sequence):
        raise InvalidConfig(f"tools: {app.tools!r:.80} is not a list: give App(tools=[...])")
    for name, topology in app.routes.items():
        if not (hasattr(topology, "agents") and hasattr(topology, "next_step")):
            raise InvalidConfig(f"route {name}: {topology!r:.80} is no topology: give SingleAgent(agent), say")
        if isinstance(topology, type):
            raise InvalidConfig(f"route {name}: {topology.__name__} is a class: give an object of it")


def _memory_rules(memory: object) -> MemoryRules | None:
    """Return the rules of an app's memory, None without one; raise `InvalidConfig` for what is neither."""
    if isinstance(memory, MemoryRules):
        return memory.checked()
    if not isinstance(memory, bool):
        raise InvalidConfig(f"memory: {memory!r:.80} is neither True, False nor MemoryRules(...)")
    return MemoryRules() if memory else None


def _http_server(http: object) -> HttpServer | None:
    """Return where the stack serves HTTP, None if it does not; raise `InvalidConfig` for what says neither."""
    if isinstance(http, HttpServer):
        return http.checked()
    if not isinstance(http, bool):
        raise InvalidConfig(f"http: {http!r:.80} is neither True, False nor HttpServer(...) of airside.http")
    return HttpServer().checked() if http else None


def _check_callback(on_approval: object) -> None:
    """Raise `InvalidConfig` for what cannot be called in a thread."""
    if on_approval is None:
        return
    if not callable(on_approval):
        raise InvalidConfig(f"on_approval: {on_approval!r:.80} is not a plain function")
    refuse_async(on_approval, "on_approval")


def _agent(name: str, agent: Agent | Callable[..., Any]) -> Agent:
    price_of(agent)  # what is no price is said now
    if hasattr(agent, "decide"):
        return agent
    if callable(agent):
        return FunctionAgent(agent)
    raise InvalidConfig(f"agent {name}: {agent!r:.80} has no decide(view) and is not a function")


def _with_gateway(
    agents: Mapping[str, Agent], routes: Mapping[str, Topology]
) -> tuple[dict[str, Agent], dict[str, Topology]]:
    """Return agents and routes with those of the gateway; raise `InvalidConfig` where the app has some of that name."""
    for kind, named in (("agent", agents), ("route", routes)):
        if GATEWAY in named:
            raise InvalidConfig(f"{kind} {GATEWAY}: that is the gateway's own with App(gateway=True): rename it")
    return {**agents, GATEWAY: GatewayAgent()}, {**routes, GATEWAY: SingleAgent(GATEWAY)}


def _with_extractor(app: App, agents: Mapping[str, Agent]) -> dict[str, Agent]:
    """Return agents with the extractor; raise `InvalidConfig` for one that is none, or has nothing to write to."""
    if EXTRACTOR in agents:
        raise InvalidConfig(f"agent {EXTRACTOR}: that is the name of App(extractor=...): rename it")
    if app.extractor is None:
        return dict(agents)
    if not isinstance(app.extractor, FactExtractor):
        raise InvalidConfig(f"extractor: {app.extractor!r:.80} is none: give FactExtractor(model)")
    if app.memory is False:
        raise InvalidConfig("extractor: it writes to memory, and the app has none: give App(memory=True)")
    return {**agents, EXTRACTOR: app.extractor}


def _only_route(agents: Mapping[str, Agent]) -> dict[str, Topology]:
    if not agents:
        raise InvalidConfig("agents: give at least one: App(agents={name: agent})")
    if len(agents) != 1:
        example = f'{{"default": SingleAgent({next(iter(agents), "agent")!r})}}'
        raise InvalidConfig(f"with {len(agents)} agents there is no default route: give App(routes=...), {example} say")
    return {"default": SingleAgent(next(iter(agents)))}
