"""Where the values of a call come from: an injected text must not gain the authority of whoever asked.

Every part of a call's arguments that a tool does not declare as content carries authority (to whom, where, how much),
and so does what content points to (`stack/text/entities.py`).  Each such value is traced to the most trusted source it
occurs in (`stack/provenance/matching.py`), in this order:

 1. approved       what people approved in this run: the same value in the complete arguments of an approved call
 2. request        the principal's own text and inputs; of a branch, those of the run it belongs to
 3. person         what somebody answered to a question of the agent's who could have approved what it is used for: what
                   was typed, and a choice as a whole (`stack/policy/answer_trust.py`)
 4. configuration  the caller's name, tenant and attributes; a default of the tool's schema; nothing at all ("", []),
                   but where that says something: a password that is set to nothing
 5. created, named what this run made itself, or the request names by its title (`stack/provenance/records.py`)
 6. memory         a record that was recalled in this activation, or for the decision it was taken up in
 7. tool           what a tool returned earlier: a whole value of one that no outsider writes into, else the first
                   that did; a request labelled `untrusted` counts as one
 8. branch         a branch's answer; in a branch, the text that somebody else wrote for it
 9. nowhere        an agent made it up, or put it together; what a tool only gave back of a call's arguments is that

An effect is asked for once: a call that says what an earlier one of the run said is `repeated`, wherever its values are
from.  A runtime traces, for it has the texts; the gate adds what was left out as `nowhere` (or as a default).
Occurrence does not understand: a value of the request that is used in another role may pass (ADR 14).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

import msgspec

from airside.stack.canonical import canonical, digest
from airside.stack.contracts.memory import Recalled
from airside.stack.provenance.arithmetic import Operand, find_sums
from airside.stack.provenance.directives import CallContext, CallValue
from airside.stack.provenance.effort import EffortExceeded, EffortLeft, limit_effort
from airside.stack.provenance.matching import Json, SearchableText, SearchTerm, decimal_of, leaves
from airside.stack.provenance.records import Known, Records, heads_of
from airside.stack.provenance.repeats import Repeats
from airside.stack.provenance.request_text import RequestText
from airside.stack.provenance.tool_names import locks, sets
from airside.stack.provenance.traversal import walk_values
from airside.stack.run.events import ActionGated, RunSubmitted
from airside.stack.run.state import RunState, StepRecord
from airside.stack.schema.choices import picks_of, words_saying
from airside.stack.schema.paths import show_path
from airside.stack.schema.toolspec import ToolSpec
from airside.stack.text.durations import sibling_start, unit_of
from airside.stack.text.entities import MAX_SCANNED, find_entities, visible
from airside.stack.text.numbers import Role, role_of
from airside.stack.values import UNTRUSTED, Origin, Part, Request, ValueOrigin

MAX_EFFORT = 200_000_000
"""Characters that are looked through for one decision's values: a hundred values in two megabytes of what was read."""

MAX_EXPLAINED = 10
"""Values of one call for which it is tried how they were worked out."""

_GIVEN_UP = "not looked for: the decision has too many values for all that was read"

MAX_VALUE = 200
MAX_TRACED = 200
"""Values of one call that are traced one by one: a person would not read more.  The rest counts as from nowhere."""

Path = tuple[str, ...]


class Subject(NamedTuple):
    """A value to trace, where it stands in the arguments, and whether it carries authority or was found in content."""

    path: Path
    value: Json
    part: Part

    def traced(self, origin: Origin, detail: str = "", *, whole: bool = False) -> ValueOrigin:
        """Return it with its origin, as a person sees it."""
        text = visible(self.value if isinstance(self.value, str) else canonical(self.value).decode())
        if len(text) > MAX_VALUE:  # two long values that begin alike must not pass for one
            mark = f"\u2026{digest(text.encode())[:16]}"
            text = text[: MAX_VALUE - len(mark)] + mark
        path = show_path(self.path)
        return ValueOrigin(path=path, value=text, part=self.part, origin=origin, detail=detail, whole=whole)


class Source(NamedTuple):
    """A text values may come from; `part` says that only values of that part may."""

    origin: Origin
    detail: str
    searchable: SearchableText
    part: Part | None = None
    whole: bool = False


class Read(NamedTuple):
    """A step of the history: what an agent said in it, what came back, and the values of it that a tool vouches for."""

    said: Source
    output: Source
    vouched: Source | None


def subjects(spec: ToolSpec, arguments: Mapping[str, Json]) -> Iterator[Subject]:
    """Yield every value of the arguments that carries authority, and every finding in their content."""
    room = MAX_SCANNED
    for path, value, part in walk_values(dict(arguments), (), spec.place, spec.content_paths):
        if part == "authority":
            yield Subject(path, value, part)
        elif value is not None and not isinstance(value, bool):
            text = value if isinstance(value, str) else str(value)
            room -= len(text)
            for found in find_entities(text) if room >= 0 else [text]:
                yield Subject(path, found, part)


def complete(
    spec: ToolSpec, given: Mapping[str, Json], arguments: Mapping[str, Json], origins: Sequence[ValueOrigin]
) -> tuple[ValueOrigin, ...]:
    """Return one origin for every value of the complete arguments, whatever a runtime told of those it was given."""
    told = {(each.path, each.part, each.value): each for each in origins}
    found: list[ValueOrigin] = []
    for subject in subjects(spec, arguments):
        bare = subject.traced("configuration" if subject.path[0] not in given else "nowhere")
        if len(found) == MAX_TRACED:
            rest = ValueOrigin(path="", value="(more values)", part="authority", origin="nowhere")
            return (*found, rest, msgspec.structs.replace(rest, part="content"))
        found.append(told.get((bare.path, bare.part, bare.value), bare))
    return tuple(found)


class Tracer:
    """Traces one run's calls.  Keeps what was recalled, and what it has read of the history."""

    def __init__(self, submitted: RunSubmitted, specs: Sequence[ToolSpec]) -> None:
        self._submitted = submitted
        self._specs = specs
        self._recalled: dict[str, Recalled] = {}
        self._memories: dict[str, Source] = {}
        self._repeats = Repeats()
        self._read_steps: dict[int, Read] = {}
        self._reads: list[Read] = []
        self._records = Records(self._was_proposed, self._was_returned)
        self._fixed: list[Source] = []
        self._switches: frozenset[tuple[str, Any]] = frozenset()
        self._subjects: list[Subject] = []
        self._explained = 0
        self._decision: tuple[int, EffortLeft] | None = None
        self._said: RequestText | None = None

    def remember(self, records: Sequence[Recalled]) -> None:
        """Keep what memory answered: an agent that has seen a record may use it later."""
        for record in records:
            self._recalled.setdefault(record.record_id, record)

    def trace(
        self, tool: str, arguments: Mapping[str, Json], state: RunState, ahead: Sequence[StepRecord] = ()
    ) -> tuple[ValueOrigin, ...]:
        """Return the origins of a proposed call's values; nothing for a tool that does not exist.

        Its agent had seen nothing of the other calls of the same decision: they vouch for nothing, but an effect that
        one of them had (or, `ahead`, will have had) is asked for again.
        """
        spec = self._spec_of(tool)
        if spec is None:
            return ()
        known = self._read_steps
        reads = self._reads = [
            known.get(record.step) or self._read_step(record, at) for at, record in enumerate(_seen(state))
        ]
        told = [*self._from_approvals(state), *self._request_sources(), *self._from_people(state)]
        # What an agent said itself gains nothing by coming back from a tool.
        vouched = [source for read in reads for source in (read.said, read.vouched) if source is not None]
        is_vouched = len(vouched) > len(reads)
        rest = [*self._untrusted_sources(), *[source for read in reads for source in (read.said, read.output)]]
        rest += [Source("branch", end.route, SearchableText(end.answer)) for end in state.branches or ()]
        rest += self._written_sources()
        groups = [told, self._from_memory(), vouched if is_vouched else [], rest]
        self._subjects = list(itertools.islice(subjects(spec, arguments), MAX_TRACED))
        self._explained = 0
        with limit_effort(self._effort_left(state)):
            try:
                before = self._repeats.of(spec, arguments, state.history, ahead)
            except EffortExceeded:  # it may be one again
                return tuple(subject.traced("nowhere", _GIVEN_UP) for subject in self._subjects)
            return tuple(self._trace_value(subject, spec, arguments, groups, before) for subject in self._subjects)

    def _effort_left(self, state: RunState) -> EffortLeft:
        """Return what may be looked through for a call; the calls of one decision have it together."""
        if state.base == state.last:
            return EffortLeft(MAX_EFFORT)  # it is the only one, and comes to the same end however often it is traced
        if self._decision is None or self._decision[0] != state.base:
            self._decision = state.base, EffortLeft(MAX_EFFORT)
        return self._decision[1]

    def _trace_value(
        self,
        subject: Subject,
        spec: ToolSpec,
        arguments: Mapping[str, Json],
        groups: Sequence[Sequence[Source]],
        before: StepRecord | None,
    ) -> ValueOrigin:
        """Return where a value is from, and nowhere if it is not looked for any more."""
        try:
            origin = self._origin(subject, spec, arguments, groups)
        except EffortExceeded:
            origin = subject.traced("nowhere", _GIVEN_UP)
        if before is not None and subject.part == "authority":
            return subject.traced("repeated", f"{before.tool}, step {before.step}; {origin.origin} before")
        return origin

    def _origin(
        self, subject: Subject, spec: ToolSpec, arguments: Mapping[str, Json], groups: Sequence[Sequence[Source]]
    ) -> ValueOrigin:
        if _is_default(spec, subject.path[0], arguments):
            return subject.traced("configuration", "default")
        if subject.value in ("", [], {}):
            is_said = _is_choice(spec, subject)
            return subject.traced("nowhere", "empty") if is_said else subject.traced("configuration")
        if isinstance(subject.value, bool) or subject.value is None:
            if (subject.path[-1], subject.value) in self._switches:
                return subject.traced("request", "inputs")
            return self._from_choices(subject, spec, arguments) or subject.traced("nowhere")
        role = _role(subject)
        sought = SearchTerm(subject.value, role, parts=subject.part == "content")
        told, *others = groups
        found = self._from_principal(subject, sought, told, spec, arguments) or self._from_choices(
            subject, spec, arguments
        )
        found = found or self._from_meaning(subject, spec, arguments)
        found = found or self._from_records(subject, spec.name)
        for sources in others:
            if found is not None and found.origin != "nowhere":
                return found
            found = _first(subject, sought, sources) if sources else None
        return found or subject.traced("nowhere", self._from_sums(subject, role))

    def _from_principal(
        self,
        subject: Subject,
        sought: SearchTerm,
        told: Sequence[Source],
        spec: ToolSpec,
        arguments: Mapping[str, Json],
    ) -> ValueOrigin | None:
        """Return what people or operators stand for; a length of the request only where it is of what the call is."""
        found, said, name = _first(subject, sought, told), self._said, subject.path[-1]
        if found is None or found.origin != "request" or said is None or subject.part == "content":
            return found
        if not _is_number(subject.value) or unit_of(name) is None:
            return found
        is_its = said.may_last(
            name, subject.value, CallContext(spec.name, self._sibling_values(subject, spec, arguments))
        )
        return found if is_its else None

    def _from_records(self, subject: Subject, tool: str) -> ValueOrigin | None:
        """Return what a record says of a value: that this run made what it names, or that the request names it."""
        records, value, said = self._records, subject.value, self._said
        made = named = None
        if subject.part == "authority":
            made = records.created(value, subject.path, tool)
            named = self._from_titles(subject, tool) if said is not None and not made else None
        known = made or named
        return known and subject.traced("created" if made else "named", known.detail, whole=known.whole)

    def _from_titles(self, subject: Subject, tool: str) -> Known | None:
        """Return what says that a value is the id of the one record that the request calls by its title."""
        said, kinds = self._said, heads_of(subject.path, tool)
        if said is None:
            return None
        return self._records.named(subject.value, subject.path, tool, lambda title: said.is_title(title, kinds))

    def _from_choices(self, subject: Subject, spec: ToolSpec, arguments: Mapping[str, Json]) -> ValueOrigin | None:
        """Return what says that the request picks a choice in words that its tool declares, or names a flag."""
        said, value = self._said, subject.value
        if said is None or subject.part == "content":
            return None
        choices = picks_of(spec.choices, subject.path) if spec.choices else ()
        name = next((part for part in reversed(subject.path) if not part.isdigit()), "")
        if choices:
            found = said.picks(name, value, choices)
        else:
            found = said.flags(name, value) if isinstance(value, bool) else []
        if not found:
            return None
        words = words_saying(name, value, choices)
        is_said = said.orders.serve(
            found, CallContext(spec.name, self._sibling_values(subject, spec, arguments), words)
        )
        return subject.traced("request", "in words") if is_said else None

    def _from_meaning(self, subject: Subject, spec: ToolSpec, arguments: Mapping[str, Json]) -> ValueOrigin | None:
        """Return what the request says of a value that does not stand in it as such."""
        said, name = self._said, subject.path[-1]
        if said is None or subject.part == "content":
            return None
        if not isinstance(subject.value, str):
            found, detail = said.lasts(name, subject.value), ""
        else:
            siblings = _at(arguments, subject.path[:-1])
            start, length, found = (
                said.start_of(name, subject.value, siblings) if isinstance(siblings, dict) else ("", "", [])
            )
            detail = f"{start} and {length}"
        is_said = found and said.orders.serve(
            found, CallContext(spec.name, self._sibling_values(subject, spec, arguments), is_length=True)
        )
        return subject.traced("request", detail) if is_said else None

    def _sibling_values(self, subject: Subject, spec: ToolSpec, arguments: Mapping[str, Json]) -> list[CallValue]:
        """Return the other values of a call by which it is told what order it is of."""
        found = []
        for each in self._subjects:
            is_bare = isinstance(each.value, bool) or each.value in (None, "", [], {})
            if each.part == "content" or each.path == subject.path or is_bare or picks_of(spec.choices, each.path):
                continue
            if not _is_default(spec, each.path[0], arguments):
                siblings = _at(arguments, each.path[:-1])
                name = each.path[-1]
                is_end = isinstance(siblings, dict) and sibling_start(name, siblings) != ""
                is_record = self._from_titles(each, spec.name) is not None
                found.append(CallValue(each.value, _role(each), is_end or unit_of(name) is not None, is_record))
        return found

    def _from_sums(self, subject: Subject, role: Role) -> str:
        """Return how an amount that stands nowhere may have been computed, and of whose numbers."""
        if subject.part == "content" or role == "name" or not _is_number(subject.value):
            return ""
        self._explained += 1
        if self._explained > MAX_EXPLAINED:
            return ""
        value = decimal_of(subject.value)
        asked = [("request", self._said.authority)] if self._said is not None else []
        sources = [*asked, *((read.output.detail, read.output.searchable) for read in self._reads)]
        known = (
            Operand(number, whose, is_share)
            for whose, searchable in sources
            for number, is_share in searchable.numbers()
        )
        return find_sums(value, known) if value is not None else ""

    def _from_memory(self) -> list[Source]:
        """Return what memory answered, each text read when a call is traced that may have a value of it."""
        for record_id, record in self._recalled.items():
            if record_id not in self._memories:
                detail = f"{record_id} of {record.source}"
                self._memories[record_id] = Source("memory", detail, SearchableText(record.text))
        return list(self._memories.values())

    def _was_proposed(self, value: str, at: int) -> bool:
        return any(read.said.searchable.may_have(value) for read in self._reads[: at + 1])

    def _was_returned(self, value: str, at: int) -> bool:
        if self._was_proposed(value, at) or any(read.output.searchable.may_have(value) for read in self._reads[:at]):
            return True
        return any(memory.searchable.may_have(value) for memory in self._memories.values())

    # The sources, most trusted first.

    def _from_approvals(self, state: RunState) -> Iterator[Source]:
        for step, gated in state.approved.items():
            if state.base <= step <= state.last and step != state.step:
                continue
            spec = self._spec_of(gated.tool)
            if spec is not None and spec.answered_by is None:  # to answer a question approves nothing it says
                detail = f"{gated.tool}, step {step}"
                for part, values in _approved_values(spec, gated):
                    yield Source("approved", detail, SearchableText(*values, whole=True), part)

    def _from_people(self, state: RunState) -> Iterator[Source]:
        """Yield what people answered whose word counts: a choice is an agent's text, so only all of it is theirs."""
        for record in _seen(state):
            gated = state.approved.get(record.step)
            spec = self._spec_of(record.tool)
            if gated is None or spec is None or spec.answered_by is None or not record.result.ok:
                continue
            if gated.trusted_output:
                said = msgspec.json.decode(record.result.output)
                yield Source(
                    "person", f"{said['by']}, step {record.step}", SearchableText(said["answer"], whole=said["chosen"])
                )

    def _spec_of(self, tool: str) -> ToolSpec | None:
        return next((spec for spec in self._specs if spec.name == tool), None)

    def _request_sources(self) -> list[Source]:
        """Return request and configuration; a request labelled `untrusted` is no principal's word."""
        if not self._fixed:
            asked, who = self._request, self._submitted.identity
            inputs = msgspec.json.decode(asked.inputs)
            names = [who.principal, who.tenant, *(each for values in who.attributes.values() for each in values)]
            configuration = Source("configuration", "identity", SearchableText(*names, whole=True))
            self._fixed = [configuration]
            if UNTRUSTED not in asked.labels:
                self._switches = frozenset(_switches(inputs))
                self._said = RequestText(
                    asked.text, inputs, datetime.fromtimestamp(self._submitted.at_us / 1e6, UTC).date()
                )
                self._fixed[:0] = [
                    Source("request", "", self._said.authority, "authority"),
                    *(Source("request", "", searchable, "content") for searchable in self._said.content),
                ]
        return self._fixed

    @property
    def _request(self) -> Request:
        return self._submitted.asked or self._submitted.request

    def _untrusted_sources(self) -> Iterator[Source]:
        if UNTRUSTED in self._request.labels:
            asked = self._request
            yield Source(
                "tool", "request labelled untrusted", SearchableText(asked.text, msgspec.json.decode(asked.inputs))
            )

    def _read_step(self, record: StepRecord, at: int) -> Read:
        """Return what a step of the history says, read once."""
        detail, value = f"{record.tool}, step {record.step}", msgspec.json.decode(record.result.output)
        spec = self._spec_of(record.tool)
        is_trusted = spec is not None and spec.trusted_output
        if record.result.ok:
            self._records.take(spec, at, detail, value)
        vouched = SearchableText(*leaves(value), whole=True) if is_trusted else None
        read = self._read_steps[record.step] = Read(
            said=Source("nowhere", f"said in {detail}", SearchableText(record.arguments)),
            output=Source("tool", detail, SearchableText(value, record.result.error)),
            vouched=None if vouched is None else Source("tool", detail, vouched, whole=True),
        )
        return read

    def _written_sources(self) -> Iterator[Source]:
        if self._submitted.asked is not None:
            request = self._submitted.request
            yield Source(
                "branch", "text of this branch", SearchableText(request.text, msgspec.json.decode(request.inputs))
            )


def _seen(state: RunState) -> Sequence[StepRecord]:
    """Return the calls an agent had seen when it made the present decision."""
    if state.base == state.last:
        return state.history
    return [record for record in state.history if record.step < state.base]


def _first(subject: Subject, sought: SearchTerm, sources: Sequence[Source]) -> ValueOrigin | None:
    """Return the first source that has a value; what an agent said before a tool did is from nowhere."""
    part, said_before = subject.part, ""
    for source in sources:
        if (source.part is not None and source.part != part) or (said_before and source.origin == "tool"):
            continue
        if source.searchable.holds(sought):
            if source.origin != "nowhere":
                return subject.traced(source.origin, source.detail, whole=source.whole)
            said_before = source.detail
    return subject.traced("nowhere", said_before) if said_before else None


def _approved_values(spec: ToolSpec, gated: ActionGated) -> Iterator[tuple[Part | None, list[Json]]]:
    """Yield what people saw of an approved call: what carried authority may do so again, what content held may not."""
    seen = list(subjects(spec, msgspec.json.decode(gated.arguments)))
    yield None, [each.value for each in seen if each.part == "authority"]
    yield "content", [each.value for each in seen if each.part == "content"]


def _is_number(value: Json) -> bool:
    return isinstance(value, int | float) or (isinstance(value, str) and value.replace(".", "", 1).isdecimal())


def _at(arguments: Mapping[str, Json], path: Path) -> Json:
    """Return what stands at a path of arguments."""
    value: Json = arguments
    for part in path:
        value = value[int(part)] if isinstance(value, list) else value[part]
    return value


def _role(subject: Subject) -> Role:
    """Return what a value is used as; what content points to may be anything."""
    names = [part for part in subject.path if not part.isdigit()]
    return role_of(names[-1]) if names and subject.part == "authority" else ""


def _is_default(spec: ToolSpec, name: str, arguments: Mapping[str, Json]) -> bool:
    return name in spec.defaults and canonical(spec.defaults[name]) == canonical(arguments.get(name))


def _is_choice(spec: ToolSpec, subject: Subject) -> bool:
    """Whether an empty value says something: a filter that is empty takes in everything, a password lets in everybody.

    It does wherever a tool changes what there is (`update_profile`), whether or not the argument must be given, and
    where what keeps others out is empty.  To send to an empty list of people is to send to nobody.
    """
    if spec.effect == "read" or subject.part == "content":
        return False
    is_asked_for = len(subject.path) == 1 and subject.path[0] in spec.required
    return sets(spec.name) or any(map(locks, subject.path)) or (is_asked_for and spec.effect == "irreversible")


def _switches(value: Json) -> Iterator[tuple[str, Any]]:
    """Yield the booleans and nulls of inputs under their names."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if isinstance(inner, bool) or inner is None:
                yield key, inner
            yield from _switches(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _switches(inner)
