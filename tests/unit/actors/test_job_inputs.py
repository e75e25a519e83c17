"""The further fields of jobs come to the same bytes, or the same words, for whoever has the app and whoever has not."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable
from datetime import date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import (
    AfterValidator,
    AliasChoices,
    AliasPath,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    RootModel,
    computed_field,
    field_validator,
    model_validator,
)
from ray import cloudpickle
from typing_extensions import TypedDict

from airside.actors import jobs
from airside.actors.client.input_reader import read_jobs_inputs
from airside.actors.client.steps import Steps, drive
from airside.actors.intake import Intake
from airside.actors.job_inputs import InputsReading, JobInputs, fields_of, read_inputs, schema_of
from airside.actors.jobs import OWN_FIELDS, BadLine, Job, parse_job, parse_lines
from airside.actors.rpc.layer import LayerConfig
from airside.actors.rpc.methods import Method
from airside.actors.settings import Settings
from airside.actors.wardens.watched import WatchedLayer
from airside.stack.errors import InvalidConfig, WrongCall
from airside.stack.ids import RunId
from tests import on_wire

OWN = {"request": "r", "tenant": "t", "principal": "p"}


class Colour(Enum):
    RED = "red"


class Everything(BaseModel):
    """What a JSON Schema cannot say, or says otherwise."""

    when: datetime
    day: date = date(2026, 1, 31)
    within: timedelta = timedelta(hours=2)
    price: Decimal = Decimal("1.50")
    colour: Colour = Colour.RED
    order_id: str = Field(alias="orderId", pattern="^o-[0-9]+$")
    count: Annotated[int, BeforeValidator(lambda v: 7 if v == "seven" else v)] = 1
    name: Annotated[str, AfterValidator(str.title)] = "ann"
    tags: set[str] = set()

    @field_validator("name")
    @classmethod
    def _is_no_eve(cls, name: str) -> str:
        if name == "Eve":
            raise ValueError("not her")
        return name

    @model_validator(mode="after")
    def _counts(self) -> Everything:
        if self.count > 9 and self.name.lower() == "ann":
            raise ValueError("ann has nine at most")
        return self

    @computed_field
    def twice(self) -> int:
        """Return what is derived from another field."""
        return 2 * self.count


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    day: date
    pair: tuple[int, str] = (1, "a")


class Choices(BaseModel):
    model_config = ConfigDict(populate_by_name=True)

    city: str = Field("", validation_alias=AliasChoices("town", AliasPath("address", "city")))


class Open(BaseModel):
    model_config = ConfigDict(extra="allow")

    kind: Literal["a", "b"] = "a"


def raising(error: BaseException) -> type[BaseModel]:
    """Return a model whose validator has a bug."""

    def bug(value: str) -> str:
        raise error

    class Raising(BaseModel):
        what: Annotated[str, AfterValidator(bug)]

    return Raising


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise SystemExit(3)


def both(model: type[BaseModel], *lines: dict[str, Any]) -> list[Job | BadLine]:
    """Return what becomes of lines, which must be the same with the model and by an intake that was sent it."""
    intake = Intake(LayerConfig(Settings(), Path("unused")), cloudpickle.loads(cloudpickle.dumps(model)))
    reader = JobInputs(intake.fields(None), intake.read)
    written = [json.dumps(OWN | line).encode() for line in lines]
    here, there = list(parse_lines(written, model)), list(parse_lines(written, reader))
    assert [each.model_dump_json() for each in here] == [each.model_dump_json() for each in there]
    assert schema_of(model, OWN_FIELDS) is not None
    return here


def one(model: type[BaseModel], **line: Any) -> Any:
    """Return the inputs of a job with these further fields, or what is wrong with them."""
    (found,) = both(model, line)
    return found.inputs if isinstance(found, Job) else found.message


def test_fields_are_normalised_by_the_model() -> None:
    """Dates, defaults, aliases, coercions and what is derived."""
    assert one(Everything, when="2026-12-24T18:00:00+01:00", orderId="o-1", count="seven", name="bob", tags=["x"]) == {
        "when": "2026-12-24T18:00:00+01:00",
        "day": "2026-01-31",
        "within": "PT2H",
        "price": "1.50",
        "colour": "red",
        "order_id": "o-1",
        "count": 7,
        "name": "Bob",
        "tags": ["x"],
        "twice": 14,
    }
    assert one(Strict, day="2026-01-31") == {"day": "2026-01-31", "pair": [1, "a"]}
    assert one(Choices, address={"city": "Rome"}) == one(Choices, town="Rome") == one(Choices, city="Rome")
    assert one(Open, other=[1]) == {"kind": "a", "other": [1]}


@pytest.mark.parametrize(
    ("model", "line", "says"),
    [
        (Everything, {"when": "soon", "orderId": "o-1"}, "line 1: when: Input should be a valid datetime"),
        (Everything, {"when": "2026-12-24T18:00:00Z"}, "line 1: orderId: required, and not there"),
        (Everything, {"when": "2026-12-24T18:00:00Z", "orderId": "1"}, "orderId: the text must have the form ^o-"),
        (Everything, {"when": "2026-12-24T18:00:00Z", "orderId": "o-1", "name": "eve"}, "name: not her"),
        (Everything, {"when": "2026-12-24T18:00:00Z", "orderId": "o-1", "count": 10}, "job: ann has nine"),
        (Everything, {"when": "2026-12-24T18:00:00Z", "order_id": "o-1"}, "orderId: required, and not there"),
        (Strict, {"day": 5}, "line 1: day: Input should be a valid date"),
        (Strict, {"day": "2026-01-31", "colour": "red"}, "line 1: colour: unknown field"),
        (Open, {"kind": "c"}, "kind: it must be 'a' or 'b'"),
        (raising(TypeError("a bug")), {"what": "x"}, "line 1: job_inputs: TypeError: a bug"),
        (raising(SystemExit(3)), {"what": "x"}, "line 1: job_inputs: SystemExit: 3"),
        (raising(Unspeakable()), {"what": "x"}, "its text cannot be had"),
        (raising(ValueError("x" * 100_000)), {"what": "x"}, "what: xxx"),
    ],
)
def test_what_is_wrong_is_said_in_the_same_words(model: type[BaseModel], line: dict[str, Any], says: str) -> None:
    """Whatever a validator raises, the line is a bad one, and says so in brief."""
    message = one(model, **line)
    assert says in message and len(message) < 2_100


def test_the_same_field_in_inputs_is_the_same_field_and_other_inputs_stay() -> None:
    """By whichever of its names it is given."""
    found = one(Everything, when="2026-12-24T18:00:00Z", inputs={"orderId": "o-2", "more": 1})
    assert (found["order_id"], found["more"], "orderId" in found) == ("o-2", 1, False)


@pytest.mark.parametrize("value", ["o-1", "o-2"])
def test_a_field_that_is_given_twice_is_refused(value: str) -> None:
    """In a line, in inputs and beside it, and where the model's reader is sent the fields by another process."""
    message = one(Everything, when="2026-12-24T18:00:00Z", orderId="o-1", inputs={"orderId": value})
    assert message == "line 1: the field 'orderId' is given twice: in inputs and beside it"
    (reading,) = read_inputs(Everything, [b'{"when": "2026-12-24T18:00:00Z", "orderId": "o-1", "orderId": "o-2"}'])
    assert reading == InputsReading(b"", "inputs: the key 'orderId' is given twice")


@pytest.mark.parametrize(
    "given", [b'{"what": NaN}', b'{"what": Infinity}', b"\xff", b"[" * 100_000, b'{"what": "\x01"}']
)
def test_the_model_is_given_only_what_the_stack_takes_from_elsewhere(given: bytes) -> None:
    """Whatever the model's own parser would make of it."""
    (reading,) = read_inputs(Open, [given])
    assert reading.inputs == b"" and reading.problem.startswith("inputs")


NUMBERS = [float("nan"), float("inf"), float("-inf")]


@pytest.mark.parametrize("kind", [float, int, Any, float | None, float | str, object])
@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("wrap", [lambda x: x, lambda x: [x], lambda x: {"a": [x]}, lambda x: (1, x)])
@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")
def test_a_number_that_is_none_is_refused_and_becomes_no_null(kind: Any, number: float, wrap: Any) -> None:
    """Also one that a validator gives in place of what was there, whatever its field is declared as."""

    def odd(value: Any) -> Any:
        return wrap(number)

    class Odd(BaseModel):
        what: Annotated[kind, AfterValidator(odd)]

    message = one(Odd, what=1)
    assert isinstance(message, str) and "is not a finite number" in message


def test_one_bad_line_harms_no_other() -> None:
    """Each has its place, though they are read together."""
    found = both(Strict, {"day": "2026-01-31"}, {"day": 1}, {"day": "2026-02-01", "labels": 5}, {"day": "2026-02-02"})
    assert [type(each) for each in found] == [Job, BadLine, BadLine, Job]
    assert [each.line for each in found if isinstance(each, BadLine)] == [2, 3]


@pytest.mark.parametrize(
    ("model", "line", "says"),
    [
        (
            Everything,
            {"orderId": "o-1", "wehn": "soon"},
            ["when: required, and not", "wehn: unknown", "(do you mean when?)"],
        ),
        (Everything, {"principle": "p"}, ["when: required", "principle: unknown field (do you mean principal"]),
        (Strict, {"dya": 1}, ["day: required", "dya: unknown field"]),
        (Strict, {"inputs": {"dya": 1}}, ["day: required", "dya: unknown field"]),
        (Strict, {"day": 5, "labels": 5}, ["day: Input should be", "labels: "]),
        (Open, {"request": None, "requst": "r"}, ["request: required, and not there (is requst meant for it?)"]),
        (Open, {"kind": "c", "limits": {"max_stepz": 5}}, ["kind: ", "no limit 'max_stepz' (do you mean max_steps?)"]),
        (Open, {"labels": ["untrused"]}, ["labels: ", "is nearly 'untrusted'"]),
    ],
)
def test_all_that_is_wrong_with_a_line_is_said(model: type[BaseModel], line: dict[str, Any], says: list[str]) -> None:
    """A name that is misspelt is said beside the field that is missing for it."""
    given = {name: value for name, value in (OWN | line).items() if value is not None}
    (found,) = parse_lines([json.dumps(given).encode()], model)
    assert isinstance(found, BadLine)
    assert all(said in found.message for said in says), found.message


@given(st.lists(st.sampled_from(["a", "b", "line-2", "line-3", ""]), max_size=6), st.sampled_from([1, 200]))
def test_no_two_lines_are_one_job(job_ids: list[str], at_once: int) -> None:
    """Later ones are bad lines that name the first, however many are read at once; what is no job harms none."""
    lines = [json.dumps(OWN | ({"job_id": job_id} if job_id else {})).encode() for job_id in job_ids]
    wrong = json.dumps({"job_id": "a"}).encode()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(jobs, "_LINES", at_once)
        _, *found = parse_lines([wrong, *lines])
    first: dict[str, int] = {}
    for number, (job_id, each) in enumerate(zip(job_ids, found, strict=True), 2):
        name = job_id or f"line-{number}"
        if first.setdefault(name, number) == number:
            assert isinstance(each, Job) and each.job_id == name
        else:
            said = f"line {number}: job_id: {name!r} is that of line {first[name]}: give each its own"
            assert isinstance(each, BadLine) and each.message == said and each.job_id == name


def test_a_job_says_when_it_is_made_what_it_can_never_have() -> None:
    """A limit that there is not, an amount that is none, a label that nobody can give."""
    for fields, says in [
        ({"limits": {"max_stepz": 5}}, r"limits: .*no limit 'max_stepz' \(do you mean max_steps\?\)"),
        ({"limits": {"colour": 5}}, "no limit 'colour'; there are max_steps, "),
        ({"limits": {"max_steps": -1}}, "not a whole number of at least 0"),
        ({"limits": {"max_steps": True}}, "limits.max_steps: "),
        ({"labels": ["untrused"]}, "is nearly 'untrusted'"),
        ({"labels": ["a\nb!"]}, "a label is 1 to"),
    ]:
        with pytest.raises(WrongCall, match=says):
            Job(**OWN, **fields)


def test_many_lines_are_read_a_few_at_a_time() -> None:
    """A file of any length is not sent as one call."""
    sizes: list[int] = []

    def read(items: Any) -> Any:
        sizes.append(len(items))
        found: list[InputsReading] = Intake(LayerConfig(Settings(), Path("unused")), Open).read(items)
        return found

    lines = [json.dumps({**OWN, "n": i}).encode() for i in range(450)]
    found = list(parse_lines(lines, JobInputs(fields_of(Open), read)))
    assert [each.inputs["n"] for each in found if isinstance(each, Job)] == list(range(450))
    assert sizes == [200, 200, 50]


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5)
    | st.sampled_from(["2026-01-31", "2026-12-24T18:00:00", "o-1", "seven", "PT1H", "red"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=4,
)
names = st.sampled_from(["when", "day", "within", "price", "colour", "orderId", "order_id", "count", "name", "tags"])


@given(st.dictionaries(names, values, max_size=6), st.sampled_from([Everything, Strict, Choices, Open]))
def test_any_line_comes_to_the_same_on_both_ways(line: dict[str, Any], model: type[BaseModel]) -> None:
    """Inputs and words."""
    both(model, line)


def test_models_that_cannot_be_read_are_refused_when_the_app_is_checked() -> None:
    """Without a schema, without fields, or with fields that are a job's own."""

    class Opaque(BaseModel):
        what: Callable[[], int]

    class Backwards(BaseModel):
        what: str = Field(json_schema_extra={"pattern": "(?<=x)y"})

    class Whole(RootModel[dict[str, int]]):
        """A value, and no fields."""

    class Routed(BaseModel):
        path: str = Field(alias="route")

    for model, says in [
        (Opaque, "^job_inputs: "),
        (Backwards, "^job_inputs: .*linear"),
        (Whole, "not a Pydantic model with fields"),
        (dict, "not a Pydantic model with fields"),
        (Routed, "^job_inputs: route: a job has a field of that name"),
    ]:
        with pytest.raises(InvalidConfig, match=says):
            schema_of(model, OWN_FIELDS)  # type: ignore[arg-type]


ENDLESS = "^(a+)+$"


class Backtracking(BaseModel):
    model_config = ConfigDict(regex_engine="python-re")

    what: str = Field("", pattern=ENDLESS)


class Row(TypedDict):
    __pydantic_config__ = ConfigDict(regex_engine="python-re")  # type: ignore[misc]

    what: Annotated[str, Field(pattern=ENDLESS)]


class Tree(BaseModel):
    below: list[Tree] = []
    leaf: Backtracking | None = None


class OfRow(BaseModel):
    rows: dict[str, tuple[Row, ...]] = {}


class Compiled(BaseModel):
    what: Annotated[str, Field(pattern=re.compile(ENDLESS))] = ""


class Misnamed(BaseModel):
    metadata: Backtracking | None = None


class Dog(BaseModel):
    kind: Literal["default"]
    default: Annotated[str, Field(pattern=re.compile(ENDLESS))]


class Cat(BaseModel):
    kind: Literal["cls"]


class Chosen(BaseModel):
    pet: Annotated[Dog | Cat, Field(discriminator="kind")] | None = None


class InASubclass(Backtracking):
    """Which has its settings."""


@pytest.mark.parametrize("model", [Backtracking, Tree, OfRow, Compiled, Misnamed, Chosen, InASubclass])
def test_a_pattern_that_may_backtrack_for_ever_is_refused_when_the_app_is_checked(model: type[BaseModel]) -> None:
    """However deep it stands, and whether by a setting or by being compiled."""
    with pytest.raises(InvalidConfig, match=r"job_inputs: a pattern of Python's `re`"):
        schema_of(model, OWN_FIELDS)


class Words(BaseModel):
    regex_engine: str = "python-re"
    what: dict[str, str] = {"regex_engine": "python-re"}
    kind: Literal["regex_engine"] = Field("regex_engine", json_schema_extra={"regex_engine": "python-re"})
    linear: str = Field("", pattern=ENDLESS)


def test_what_only_looks_like_such_a_setting_is_a_field_like_any_other() -> None:
    assert one(Words) == {**Words().model_dump()}


async def test_the_intakes_pulse_counts_each_job_that_a_model_has_read() -> None:
    """So that many jobs are no hold, and one whose validator never comes back is."""
    counts: list[int] = []

    class Pulse:
        left = 0

        def enter(self, run_id: RunId) -> None:
            """A job is read."""

        def leave(self) -> None:
            """It was."""
            self.left += 1

    class Noting(BaseModel):
        what: int

        @field_validator("what")
        @classmethod
        def _note(cls, what: int) -> int:
            counts.append(pulse.left)
            return what

    intake = Intake(LayerConfig(Settings(), Path("unused")), Noting)
    pulse = intake.pulse = Pulse()
    readings = intake.read([b'{"what":1}', b'{"what":"x"}', b'{"what":3}'])
    assert isinstance(intake, WatchedLayer) and counts == [0, 2]
    assert [bool(each.problem) for each in readings] == [False, True, False] and pulse.left == 3


def test_a_line_alone_is_read_as_in_a_file() -> None:
    """`parse_job` and `parse_lines` are one parser."""
    line = json.dumps({**OWN, "day": "2026-01-31"}).encode()
    assert parse_job(line, 1, Strict) == next(parse_lines([line], Strict))


class Stacked:
    """A connection to a stack whose app has this model; it counts the calls."""

    def __init__(self, model: type[BaseModel]) -> None:
        self.intake = Intake(LayerConfig(Settings(), Path("unused")), model)
        self.intake._started = True
        self.called: list[str] = []

    def call(self, method: Method[Any, Any], request: Any, *, within_s: float | None = None) -> Steps[Any]:
        """Call the intake."""
        self.called.append(method.name)
        return asyncio.run(on_wire.ask(self.intake, method, request))
        yield

    def read(self, *jobs: Job | BadLine) -> list[Job | BadLine]:
        """Return what becomes of jobs that a program submits."""
        return drive(read_jobs_inputs(self, jobs))  # type: ignore[arg-type]


@given(st.lists(st.dictionaries(names, values, max_size=6), max_size=3), st.sampled_from([Everything, Strict, Open]))
def test_what_a_program_submits_comes_to_the_same_as_a_line(
    given: list[dict[str, Any]], model: type[BaseModel]
) -> None:
    """The same inputs, or the same words; and no model reads what one has read."""
    lines = [json.dumps(OWN | {"inputs": inputs}).encode() for inputs in given]
    expected = list(parse_lines(lines, model))
    stack = Stacked(model)
    found = stack.read(*(Job(**OWN, inputs=inputs) for inputs in given))
    for here, there in zip(expected, found, strict=True):
        assert type(here) is type(there)
        if isinstance(here, Job) and isinstance(there, Job):
            assert here.inputs == there.inputs
        elif isinstance(here, BadLine) and isinstance(there, BadLine) and ": inputs: " in there.message:
            assert here.message.split(": ", 1)[1] == there.message.split(": inputs: ", 1)[1]
    stack.called.clear()
    assert stack.read(*expected) == expected and stack.read(*found) == found and "read" not in stack.called


def test_inputs_that_are_other_than_what_was_read_are_read_again() -> None:
    """Whichever model read them, and whatever became of the job since."""
    (job,) = Stacked(Strict).read(Job(**OWN, inputs={"day": "2026-01-31"}))
    assert isinstance(job, Job) and job.inputs == {"day": "2026-01-31", "pair": [1, "a"]}
    again = cloudpickle.loads(cloudpickle.dumps(job))
    stack = Stacked(Strict)
    assert stack.read(again) == [job] and stack.called == ["fields"]
    changed = job.model_copy(update={"inputs": {"day": 5}})
    job.inputs["pair"] = 7
    for wrong in stack.read(changed, job):
        assert isinstance(wrong, BadLine)
    (other,) = Stacked(Everything).read(again)
    assert isinstance(other, BadLine) and "jobs[0]: inputs: when: required, and not there" in other.message


def test_a_job_whose_inputs_are_wrong_harms_no_other_and_bad_lines_stay() -> None:
    """Each has its place; what is no JSON is said as ever."""
    bad = BadLine(line=3, job_id="b", message="line 3: no")
    found = Stacked(Strict).read(
        bad,
        Job(**OWN, inputs={"day": "2026-01-31"}),
        Job(**OWN, job_id="j", inputs={"day": "2026-01-31", "colour": "red"}),
        Job(**OWN, inputs={"day": float("nan")}),
        Job(**OWN),
    )
    assert found[0] is bad and isinstance(found[1], Job)
    assert [each.message for each in found[2:] if isinstance(each, BadLine)] == [
        "jobs[2]: inputs: colour: unknown field; there are day, pair",
        "jobs[3]: inputs.day: nan is not a finite number",
        "jobs[4]: inputs: day: required, and not there",
    ]


def test_jobs_of_a_program_are_read_a_few_at_a_time() -> None:
    """A batch of any length is not sent as one call."""
    stack = Stacked(Open)
    found = stack.read(*(Job(**OWN, inputs={"n": i}) for i in range(450)))
    assert [each.inputs for each in found if isinstance(each, Job)] == [{"kind": "a", "n": i} for i in range(450)]
    assert stack.called == ["fields", "read", "read", "read"]
