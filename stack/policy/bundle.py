"""Policy bundles: a versioned list of rules, closed and typed; `stack/policy/evaluator.py` says what they mean."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args
from zoneinfo import ZoneInfo

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from airside.stack.canonical import check_bounds
from airside.stack.contracts.labels import check_label
from airside.stack.errors import InvalidConfig, InvalidInput
from airside.stack.input.yaml_source import Lines, read_yaml
from airside.stack.resources import KIND
from airside.stack.schema.paths import EVERY, parse_path, show_path
from airside.stack.schema.toolspec import ToolSpec
from airside.stack.text.names import matcher
from airside.stack.text.patterns import compile_pattern
from airside.stack.text.spelling import is_plain, over_texts, plain
from airside.stack.values import Clearance, EffectClass, Lane, Origin, Risk

DEFAULT_POLICY = Path(__file__).parent / "policies" / "default.yaml"
"""The bundle that ships: reads and ordinary writes pass, what an outsider's text may have steered is asked about."""


class _Closed(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


Operator = Literal[
    "eq",
    "ne",
    "lt",
    "le",
    "gt",
    "ge",
    "in",
    "not_in",
    "matches",
    "contains",
    "starts_with",
    "ends_with",
    "exists",
    "absent",
]
Unit = Literal["max_cost_microusd", "max_tokens", "max_tool_calls", "max_steps", "max_seconds", "max_output_bytes"]
Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
DAYS: tuple[Day, ...] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
Strings = Annotated[list[str], Field(min_length=1)]


_TEXT = ("matches", "starts_with", "ends_with")
_OPERANDS: dict[str, tuple[type, ...]] = {
    "lt": (int, float),
    "le": (int, float),
    "gt": (int, float),
    "ge": (int, float),
    "in": (list,),
    "not_in": (list,),
    **dict.fromkeys(_TEXT, (str,)),
    "exists": (bool,),
}
_CASELESS = ("eq", "ne", "in", "not_in", "contains", *_TEXT)


def _check_operand(op: str, value: Any) -> None:
    """Raise `ValueError` for a value the operator could only fail on, or that says nothing."""
    wanted = _OPERANDS.get(op)
    if wanted is not None and (type(value) not in wanted):
        raise ValueError(f"{op} takes {' or '.join(kind.__name__ for kind in wanted)}, not {value!r:.40}")
    try:
        check_bounds(value, where="value")
    except InvalidInput as error:
        raise ValueError(f"{op} takes what an argument can be: {error.message}") from None
    if wanted == (list,) and not value:
        raise ValueError(f"{op} takes a list of at least one value: nothing is in an empty one")
    if value == "" and op in ("contains", "starts_with", "ends_with"):
        raise ValueError(f"{op} takes a text of at least one character: every text has the empty one")


def _check_pattern(pattern: str, *, ignore_case: bool) -> None:
    if not is_plain(pattern):
        raise ValueError(
            f"{pattern!r:.60} has characters that are not seen or have a plainer form: write {plain(pattern)!r:.60}, "
            f"or \\u{{CODE}} for just that character"
        )
    try:
        compile_pattern(pattern, ignore_case=ignore_case)
    except InvalidConfig as error:
        raise ValueError(error.message) from None


_CALLERS = ("principal", "tenant", "attributes")


def _check_path(path: str | None) -> str | None:
    try:
        parse_path("*" if path is None else path)
    except InvalidConfig as error:
        raise ValueError(error.message) from None
    return path


class Comparison(_Closed):
    """A comparison of what a rule looks at.

    With `value`; with a fact about the caller, `identity: principal` or `tenant` (`eq`, `ne`), or `attributes.NAME`
    (`in`, `not_in`); or, by `of`, with one of these or the value at a path of the call's arguments (`arguments.PATH`
    where the path begins as a fact about the caller does).  `ignore_case` takes a and A for the same.  `matches` takes
    a regular expression for the whole text, without look-around and back references (`stack/text/patterns.py`).  What
    is not there, or null, is `absent` (`exists` with `value: false`) and satisfies nothing else; but a null that is
    there satisfies what names it, `eq` null and `in` with null in the list.  Of several values, and of ways to write
    one, a rule that denies or asks needs one that satisfies, and a rule that allows all
    (`stack/policy/comparisons.py`).
    """

    op: Operator
    value: Any = None
    identity: str | None = None
    of: str | None = None
    ignore_case: bool = False

    @property
    def caller(self) -> str | None:
        """The fact about the caller it compares with, None if it is with anything else."""
        return self.of if self.of is not None and self.of.split(".")[0] in _CALLERS else self.identity

    @property
    def other(self) -> str | None:
        """The path in the call's arguments of what it compares with, None if it is with anything else."""
        return None if self.of is None or self.caller else self.of.removeprefix("arguments.")

    @field_validator("of")
    @classmethod
    def _of_is_a_path(cls, path: str | None) -> str | None:
        return _check_path(path)

    @field_validator("identity")
    @classmethod
    def _identity_is_a_fact(cls, name: str | None) -> str | None:
        return name if name is None else _check_caller(name)

    @model_validator(mode="after")
    def _has_one_operand(self) -> Self:
        given = self.model_fields_set & {"value", "identity", "of"}
        if self.op == "absent" and given:
            raise ValueError("absent compares with nothing")
        if self.ignore_case and self.op not in _CASELESS:
            raise ValueError(f"{self.op} compares no texts: ignore_case says nothing of it")
        if self.op in ("exists", "absent") and not given:
            return self
        if len(given) != 1:
            raise ValueError("give either value or identity, or of")
        if self.caller is not None:
            is_list = _check_caller(self.caller).startswith("attributes.")
            if self.op not in (("in", "not_in") if is_list else ("eq", "ne")):
                takes = "in or not_in, for an attribute is a list" if is_list else "eq or ne"
                raise ValueError(f"{self.caller} is compared by {takes}; {self.op} is not")
        elif self.other is not None:
            if self.op in ("exists", "matches"):
                raise ValueError(f"{self.op} takes a value, and none of the call's")
            if EVERY in parse_path(self.other) and self.op not in ("in", "not_in"):
                raise ValueError(f"{self.of} may be several values: they are compared with by in or not_in")
        else:
            _check_operand(self.op, self.value)
            if self.op == "matches":
                _check_pattern(self.value, ignore_case=self.ignore_case)
        return self


def _check_caller(name: str) -> str:
    if name not in ("principal", "tenant") and name.removeprefix("attributes.") in ("", name):
        raise ValueError(f"{name!r:.60} is none of principal, tenant and attributes.NAME")
    return name


class ArgumentTest(Comparison):
    """A condition on the arguments.  `path` is dotted, `*` stands for every item of a list (`stack/schema/paths.py`).

    To what forbids or asks it also stands for an object, and for every value of one (`stack/policy/comparisons.py`).
    """

    path: str

    @field_validator("path")
    @classmethod
    def _path_is_one(cls, path: str) -> str:
        _check_path(path)
        return path


class OriginTest(_Closed):
    """A condition on where the arguments' values come from (`stack/provenance/tracer.py`).

    `outside`: a value (`of: authority`, `content`, or `any`) has an origin that is not listed; `within`: one that is.
    A rule that denies or asks needs one such value, a rule that allows needs all to be such.  `tool:NAME` lists what
    one tool returned: where a rule trusts it, only a whole value of a tool that no outsider writes into; a word within
    a value may be planted.
    """

    of: Literal["authority", "content", "any"] = "any"
    outside: Strings | None = None
    within: Strings | None = None

    @field_validator("outside", "within")
    @classmethod
    def _origins_exist(cls, names: list[str] | None) -> list[str] | None:
        for name in names or ():
            if name not in get_args(Origin) and not name.startswith("tool:"):
                raise ValueError(f"no origin {name!r:.60}: {', '.join(get_args(Origin))}, or tool:NAME")
        return names

    @model_validator(mode="after")
    def _has_one_list(self) -> OriginTest:
        if (self.outside is None) == (self.within is None):
            raise ValueError("give either outside or within")
        return self

    def trusts(self, outcome: str) -> bool:
        """Whether the rule is milder because of what is listed, not stricter."""
        return (self.within is not None) == (outcome == "allow")

    def trusts_answers(self, outcome: str) -> bool:
        """Whether the rule is milder because a value is what a person answered."""
        return "person" in (self.outside or self.within or ()) and self.trusts(outcome)


Plain = bool | int | float | str | None


class ResourceTest(_Closed):
    """A condition on what the call is about: one kind of resource that its tool declares, perhaps at one declared path.

    `owner`: the `principal` who asks, any `other` (or nobody), `nobody`, or names; a rule that allows takes no resource
    that tenants share for the principal's, for it may be owned by one of that name in another tenant.  `tenant`: the
    caller's `own`, or `shared` by all.  `sensitivity`: one that is listed, or one that the principal is `cleared` for,
    or is `above` that.  `attributes`: each the given value, one of a list of values, or what satisfies a comparison.
    An unknown resource is refused before any rule.
    """

    kind: Annotated[str, Field(pattern=f"^{KIND.pattern}$")]
    path: str | None = None
    owner: Literal["principal", "other", "nobody"] | Strings | None = None
    tenant: Literal["own", "shared"] | None = None
    sensitivity: Literal["cleared", "above"] | Annotated[list[Clearance], Field(min_length=1)] | None = None
    attributes: Annotated[dict[str, Comparison | Plain | list[Plain]], Field(min_length=1)] | None = None

    @field_validator("path")
    @classmethod
    def _path_is_one(cls, path: str | None) -> str | None:
        return _check_path(path)

    @field_validator("attributes")
    @classmethod
    def _are_comparisons(cls, attributes: dict[str, Any] | None) -> dict[str, Any] | None:
        for name, given in (attributes or {}).items():
            _attribute_test(name, given)
        return attributes

    def comparisons(self) -> dict[str, ArgumentTest]:
        """Return the tests of its attributes, each on an object that has that attribute alone."""
        return {name: _attribute_test(name, given) for name, given in (self.attributes or {}).items()}

    def asks(self, spec: ToolSpec) -> list[tuple[str, str]]:
        """Return which of the resources that a tool declares it asks about."""
        return [pair for pair in spec.resources if pair[0] == self.kind and self.path in (None, pair[1])]


def _attribute_test(name: str, given: Comparison | Plain | list[Plain]) -> ArgumentTest:
    """Return the test of one attribute; raise `ValueError` for values nothing can be compared with."""
    path = show_path((name,))
    if isinstance(given, Comparison):
        return ArgumentTest(path=path, **given.model_dump(exclude_unset=True))
    op: Operator = "in" if isinstance(given, list) else "eq"
    try:
        return ArgumentTest(path=path, op=op, value=given)
    except ValidationError as error:
        raise ValueError(f"{name}: {error.errors(include_url=False)[0]['msg']}") from None


class RemainingTest(_Closed):
    """A condition on what the run may still use."""

    unit: Unit
    op: Literal["lt", "le", "gt", "ge"]
    value: Annotated[int, Field(ge=0)]

    @model_validator(mode="after")
    def _can_hold(self) -> RemainingTest:
        if self.op == "lt" and self.value == 0:
            raise ValueError(f"nothing is below 0: {self.unit} le 0 is what is used up")
        return self


class TimeWindow(_Closed):
    """A window of the week in a named time zone; `start` > `end` reaches over midnight."""

    days: Annotated[list[Day], Field(min_length=1)] = list(DAYS)
    start: Annotated[str, Field(pattern=r"^([01]\d|2[0-3]):[0-5]\d$")] = "00:00"
    end: Annotated[str, Field(pattern=r"^([01]\d|2[0-3]):[0-5]\d$")] = "23:59"
    zone: str = "UTC"

    @field_validator("zone")
    @classmethod
    def _zone_exists(cls, name: str) -> str:
        try:
            ZoneInfo(name)
        except (KeyError, ValueError, OSError) as error:  # the name of a folder of zones is none
            raise ValueError(f"no time zone {name!r}: {error}") from None
        return name


def _labels_are_tidy(labels: list[str]) -> list[str]:
    for label in labels:
        try:
            tidy = check_label(label)
        except InvalidInput as error:
            raise ValueError(error.message) from None
        if tidy != label:
            raise ValueError(f"no run has the label {label!r:.60}: a label is written {tidy!r:.60}")
    return labels


def _listed(given: Any) -> Any:
    """Take one condition for a list of one."""
    return [given] if isinstance(given, dict) else given


class When(_Closed):
    """The conditions of a rule; one that is not given always holds.  Names may use `*` and `?`."""

    tool: Strings | None = None
    effect: Annotated[list[EffectClass], Field(min_length=1)] | None = None
    tenant: Strings | None = None
    principal: Strings | None = None
    roles: Strings | None = None
    scopes: Strings | None = None
    labels: Annotated[Strings, AfterValidator(_labels_are_tidy)] | None = None
    risk: Annotated[list[Risk], Field(min_length=1)] | None = None
    lane: Annotated[list[Lane], Field(min_length=1)] | None = None
    arguments: Annotated[list[ArgumentTest], Field(min_length=1)] | None = None
    origins: Annotated[list[OriginTest], Field(min_length=1)] | None = None
    resource: Annotated[list[ResourceTest], Field(min_length=1), BeforeValidator(_listed)] | None = None
    remaining: Annotated[list[RemainingTest], Field(min_length=1)] | None = None
    time: TimeWindow | None = None

    def asks(self, spec: ToolSpec) -> frozenset[tuple[str, str]]:
        """Return which of the resources that a tool declares some condition asks about."""
        return frozenset(pair for test in self.resource or () for pair in test.asks(spec))


class ApprovalTerms(_Closed):
    """Who must approve: `quorum` different people, each holding one of `roles`, within `expires_after_s`."""

    roles: Strings
    quorum: Annotated[int, Field(ge=1, le=16)] = 1
    expires_after_s: Annotated[int, Field(ge=1, le=30 * 86_400)] = 3600


class Rule(_Closed):
    """One rule; `code` is its own reason code, shown beside the stack's.

    `require: sandbox`, where it allows or asks: a call that it matches is denied unless its tool runs in a sandbox.
    """

    id: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]
    outcome: Literal["allow", "deny", "require_approval"]
    code: Annotated[str, Field(pattern=r"^[a-z0-9_]{1,64}$")] = ""
    description: str = ""
    when: When = When()
    approval: ApprovalTerms | None = None
    require: Literal["sandbox"] | None = None

    @property
    def shows_origins(self) -> bool:
        """Whether it asks where the values of a call come from, or a person, who is shown that."""
        return self.approval is not None or self.when.origins is not None

    @model_validator(mode="after")
    def _approval_fits(self) -> Rule:
        if (self.outcome == "require_approval") != (self.approval is not None):
            raise ValueError("outcome require_approval needs approval, and only that outcome has it")
        return self

    @model_validator(mode="after")
    def _allows_what_it_requires(self) -> Rule:
        if self.require is not None and self.outcome == "deny":
            raise ValueError("require is of a rule that allows or asks: one that denies takes no call, sandbox or not")
        return self

    @model_validator(mode="after")
    def _can_be_met(self) -> Rule:
        for index, test in enumerate(self.when.arguments or ()):
            if self.outcome == "allow" and not is_plain(test.value):
                raise ValueError(
                    f"when.arguments.{index}: an allowed text is written plainly, so none is {test.value!r:.60}: write "
                    f"{over_texts(plain, test.value)!r:.60}"
                )
        return self


class Bundle(_Closed):
    """A policy bundle.  `version` names it in every decision.

    `shared` = it is written for apps its author does not know: that nobody of an app's directory holds a role it asks
    approval of is no mistake then, and a call that needs such an approval waits, and expires.
    """

    version: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]
    description: str = ""
    shared: bool = False
    rules: Annotated[list[Rule], Field(min_length=1)]

    @model_validator(mode="after")
    def _ids_differ(self) -> Bundle:
        ids = [rule.id for rule in self.rules]
        repeated = sorted({i for i in ids if ids.count(i) > 1})
        if repeated:
            raise ValueError(f"rule ids given twice: {', '.join(repeated)}")
        return self

    def traced_tools(self, specs: Iterable[ToolSpec]) -> frozenset[str]:
        """Return the tools of whose calls some rule may ask where the values come from, or a person is asked."""
        asking = [rule.when for rule in self.rules if rule.shows_origins]
        return frozenset(s.name for s in specs if s.answered_by or any(may_match(when, s) for when in asking))

    def matched_tools(self, rule: Rule, specs: Iterable[ToolSpec]) -> list[ToolSpec]:
        """Return the tools a rule may be about."""
        return [spec for spec in specs if may_match(rule.when, spec)]

    def looked_up_tools(self, specs: Iterable[ToolSpec]) -> frozenset[str]:
        """Return the tools of whose calls some rule may ask what is known of their resources."""
        rules = [rule.when for rule in self.rules]
        return frozenset(s.name for s in specs if any(may_match(when, s) and when.asks(s) for when in rules))


def may_match(when: When, spec: ToolSpec) -> bool:
    """Whether a rule with these conditions may be about a call of this tool."""
    return (
        (when.effect is None or spec.effect in when.effect)
        and (when.risk is None or spec.risk in when.risk)
        and (when.lane is None or spec.lane in when.lane)
        and (when.tool is None or matcher(when.tool)(spec.name))
    )


def load_bundle(source: str | Path) -> Bundle:
    """Load a bundle from a file or YAML text; raise `InvalidConfig` naming the line of whatever is wrong."""
    return read_bundle(source)[0]


def read_bundle(source: str | Path) -> tuple[Bundle, Lines]:
    """Load a bundle as `load_bundle`, and return where its rules stand."""
    return read_yaml(source, Bundle, name="policy")
