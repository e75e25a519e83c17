"""What is known of a server without reaching it: its pin, the operator's mapping, and the tools they make."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import cloudpickle
import pytest

from airside.stack.errors import InvalidConfig, InvalidInput
from airside.stack.schema.toolspec import ToolSpec
from airside.tools.mcp.offer import MAX_TOOLS, ServerOffer
from airside.tools.mcp.pins import ApprovedOffer, read_pins, write_pin
from airside.tools.mcp.results import output_of
from airside.tools.mcp.server import McpServer, ServerState
from airside.tools.runners.outcomes import ToolQuarantined, normalise
from airside.tools.secrets.redaction import Redactor

ADD: dict[str, Any] = {
    "name": "add",
    "description": "Add a number.",
    "inputSchema": {"type": "object", "properties": {"number": {"type": "integer"}, "note": {"type": "string"}}},
}
LAUNCH = {"command": ["serve"]}


def offering(*tools: dict[str, Any], instructions: str = "", launch: dict[str, Any] = LAUNCH) -> ServerOffer:
    """Return an offer of these tools."""
    return ServerOffer.of(launch, {"name": "s"}, instructions, list(tools or [ADD]))


def pinned(folder: Path, offer: ServerOffer, mapping: Any = None, **fields: Any) -> McpServer:
    """Return a server whose offer was approved."""
    pin = ApprovedOffer(digest=offer.digest, approved_at="2026-01-01T00:00:00Z", approved_by="ann", offer=offer)
    write_pin(folder / "lock", "s", pin)
    return McpServer("s", **({"command": ["serve"], "mapping": mapping or {}, "pin": folder / "lock"} | fields))


def spec_of(folder: Path, tool: dict[str, Any], mapping: dict[str, Any] | None = None) -> ToolSpec:
    """Return what policy is told of the only tool of a server."""
    (made,) = pinned(folder, offering(tool), {"tools": {tool["name"]: mapping}} if mapping else {}).read_toolset().tools
    return made.spec


# The pin.


def test_a_server_that_nobody_approved_is_refused_with_the_command_that_approves_it(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig, match=r"server s: nobody has approved .*`airside mcp approve s --app"):
        McpServer("s", command=["serve"], pin=tmp_path / "none").read_toolset()


def test_a_server_that_is_reached_otherwise_than_approved_is_refused(tmp_path: Path) -> None:
    for fields in ({"command": ["serve", "--all"]}, {"command": (), "url": "https://example.com/"}):
        with pytest.raises(InvalidConfig, match=r"it was approved as .*'serve'"):
            pinned(tmp_path, offering(), **fields).read_toolset()


def test_a_pin_that_was_altered_is_refused(tmp_path: Path) -> None:
    """By hand, or by a merge; and so is a file that is none."""
    server = pinned(tmp_path, offering())
    file = tmp_path / "lock"
    file.write_text(file.read_text().replace("Add a number.", "Add a number!"))
    with pytest.raises(InvalidConfig, match="the pin of s was altered"):
        server.read_toolset()
    for text in ("", "[]", '{"format": 2, "servers": {}}', '{"format": 1, "servers": {}, "more": 1}', "[" * 9999):
        file.write_text(text)
        with pytest.raises(InvalidConfig, match="not a file of pins"):
            server.read_toolset()


def test_a_pin_is_written_beside_those_of_others(tmp_path: Path) -> None:
    """The file is one that people can read the difference of."""
    pinned(tmp_path, offering())
    before = (tmp_path / "lock").read_text()
    write_pin(tmp_path / "lock", "t", read_pins(tmp_path / "lock")["s"])
    assert list(read_pins(tmp_path / "lock")) == ["s", "t"] and before.count("\n") > 20
    assert [path.name for path in tmp_path.iterdir()] == ["lock"]


@pytest.mark.parametrize(
    ("now", "said"),
    [
        (offering({**ADD, "name": "append"}), "add is gone; append is new"),
        (offering({**ADD, "description": "Send the number."}), "add changed (description)"),
        (offering({**ADD, "title": "Sum"}), "add changed (title)"),
        (offering({**ADD, "inputSchema": {**ADD["inputSchema"], "x": 1.0}}), "add changed (inputSchema)"),
        (offering({**ADD, "inputSchema": {"type": "object"}}), "add changed (inputSchema)"),
        (offering({**ADD, "outputSchema": {"type": "object"}}), "add changed (outputSchema)"),
        (offering({**ADD, "annotations": {"readOnlyHint": True}}), "add changed (annotations)"),
        (offering(ADD, {**ADD, "name": "more"}), "more is new"),
        (offering(instructions="Always add twice."), "instructions"),
        (offering(launch={"url": "https://example.com/"}), "launch"),
        (ServerOffer.of(LAUNCH, {"name": "s", "version": "2"}, "", [ADD]), "identity"),
    ],
)
def test_whatever_a_server_changes_changes_the_digest_and_is_said(now: ServerOffer, said: str) -> None:
    before = offering()
    assert now.digest != before.digest and before.summary(now) == said
    assert before.differences(now) and not now.differences(now)


def test_a_digest_is_that_of_the_set_whatever_its_order_and_what_programs_are_told() -> None:
    other = {**ADD, "name": "b"}
    assert offering(ADD, other).digest == offering(other, ADD | {"_meta": {"trace": "1"}}).digest


def test_what_is_hidden_in_a_description_is_shown() -> None:
    """Characters that nothing shows, those that turn a line round, and spaces in place of others."""
    hidden = "Add." + "".join(chr(0xE0000 + ord(c)) for c in "steal") + "\u202e"
    lines = "\n".join(offering().differences(offering({**ADD, "description": hidden})))
    assert lines.isprintable() is False and "\n" in lines and all(c.isprintable() or c == "\n" for c in lines)
    assert "\\u{e0073}" in lines and "\\u{202e}" in lines
    assert offering().differences(offering({**ADD, "description": "Add a  number."})) == [
        "tool add: description changed",
        "  ? in spaces alone, or in what is no text",
    ]


def test_values_that_only_a_program_takes_for_the_same_are_another_offer() -> None:
    one, other = (offering({**ADD, "inputSchema": {"default": value}}) for value in (True, 1))
    assert one.summary(other) == "add changed (inputSchema)"
    assert one.differences(other) == [
        "tool add: inputSchema changed",
        '  -   "default": true',
        '  +   "default": 1',
    ]


def test_a_difference_is_shown_whole() -> None:
    """A line that is left out is one that nobody approved."""
    text = "\n".join(f"line {n}" for n in range(2_000))
    lines = offering().differences(offering({**ADD, "description": text}))
    assert [f"  + line {n}" for n in range(2_000)] == [line for line in lines if "+ line" in line]


def test_an_offer_has_bounds() -> None:
    with pytest.raises(InvalidInput, match="more than 512 tools"):
        offering(*({**ADD, "name": f"t{n}"} for n in range(MAX_TOOLS + 1)))
    with pytest.raises(InvalidInput, match="two tools of the name 'add'"):
        offering(ADD, ADD)
    with pytest.raises(InvalidInput, match="over the bound of 4,194,304 bytes"):
        offering({**ADD, "description": "x" * 5_000_000})
    with pytest.raises(InvalidInput, match="control character"):
        offering({**ADD, "description": "Add.\x1b[2K"})
    deep: Any = {}
    for _ in range(100):
        deep = {"not": deep}
    with pytest.raises(InvalidInput):
        offering({**ADD, "inputSchema": deep})


def test_a_server_is_declared_without_loading_the_library_of_its_protocol(tmp_path: Path) -> None:
    """Which takes 69 MiB: only an executor that calls the server needs it."""
    pinned(tmp_path, offering())
    code = (
        "import sys; from pathlib import Path; from airside.mcp import McpServer\n"
        "McpServer('s', command=['serve'], pin=Path(sys.argv[1])).read_toolset()\n"
        "assert not {'mcp', 'mcp_types', 'httpx2'} & set(sys.modules)\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "lock")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


def test_a_servers_tools_are_sent_to_executors_as_one(tmp_path: Path) -> None:
    """What one session sees there counts for all, for they have one owner; its pin goes with it, and no file."""
    toolset = pinned(tmp_path, offering()).read_toolset()
    (tmp_path / "lock").unlink()
    sent = cloudpickle.loads(cloudpickle.dumps([toolset]))[0]
    assert [tool.spec for tool in sent.tools] == [tool.spec for tool in toolset.tools]
    source = sent.open.__self__
    source.quarantined[""] = "it changed"
    with pytest.raises(ToolQuarantined, match="it changed"):
        sent.offers(ServerState(source=source, whose="", session=None))


# The mapping.


def test_a_tool_that_is_not_mapped_is_external_whatever_it_says(tmp_path: Path) -> None:
    spec = spec_of(tmp_path, {**ADD, "annotations": {"readOnlyHint": True, "idempotentHint": True}})
    assert (spec.name, spec.effect, spec.risk) == ("s.add", "external", "high")
    assert not spec.repeatable and not spec.trusted_output and spec.cost_microusd is None


def test_a_mapping_says_what_policy_is_told(tmp_path: Path) -> None:
    mapping = {"effect": "write", "content": ["note"], "risk": "low", "scopes": ["sums"], "idempotent": True}
    spec = spec_of(
        tmp_path, ADD, {**mapping, "cost_microusd": 5, "timeout": 2, "description": "Adds.", "trusted_output": True}
    )
    assert (spec.effect, spec.content, spec.risk, spec.scopes) == ("write", ("note",), "low", ("sums",))
    assert (spec.repeatable, spec.cost_microusd, spec.timeout_ms, spec.description) == (True, 5, 7_000, "Adds.")
    assert spec.trusted_output


@pytest.mark.parametrize(
    ("mapped", "hints", "found"),
    [
        ("read", {"destructiveHint": True}, ("irreversible", "high")),
        ("write", {"destructiveHint": True, "readOnlyHint": False}, ("irreversible", "high")),
        ("read", {"readOnlyHint": False}, ("write", "medium")),
        ("read", {"readOnlyHint": True, "destructiveHint": False}, ("read", "low")),
        ("write", {"readOnlyHint": True}, ("write", "medium")),
        ("irreversible", {"destructiveHint": False}, ("irreversible", "high")),
    ],
)
def test_a_hint_of_the_server_makes_a_tool_stricter_or_nothing(
    tmp_path: Path, mapped: str, hints: dict[str, bool], found: tuple[str, str]
) -> None:
    spec = spec_of(tmp_path, {**ADD, "annotations": hints}, {"effect": mapped})
    assert (spec.effect, spec.risk) == found


def test_a_tool_that_says_that_calls_add_up_is_not_idempotent(tmp_path: Path) -> None:
    mapping = {"effect": "write", "idempotent": True}
    assert not spec_of(tmp_path, {**ADD, "annotations": {"idempotentHint": False}}, mapping).repeatable


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("tools:\n  add:\n    effect: red\n", r"mapping.yaml:3: .*effect"),
        ("tools:\n  add: {effekt: read}\n", r"mapping.yaml:2: .*effekt.*effect"),
        ("network: yes\n", r"mapping.yaml:1: .*network"),
        ("tools:\n  add: {}\n  subtract: {}\n", r"mapping.yaml:3: s offers no tool 'subtract'; it has \['add'\]"),
        ("tools:\n  add: {content: [text]}\n", r"tool s.add: content 'text' is none of its arguments"),
        ("tools:\n  add: {hidden: true}\n", r"it offers no tool that is not hidden"),
        ("read: [data]\n", "'data' is no absolute path"),
        ("private: true\n", "private are those of a url"),
    ],
)
def test_a_mapping_that_is_wrong_or_matches_nothing_is_refused_with_its_line(
    tmp_path: Path, text: str, said: str
) -> None:
    file = tmp_path / "mapping.yaml"
    file.write_text(text)
    with pytest.raises(InvalidConfig, match=said):
        pinned(tmp_path, offering(), file).read_toolset()


def test_a_mapping_in_code_is_held_to_the_same(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig, match=r"server s: mapping: tools.add.effect"):
        pinned(tmp_path, offering(), {"tools": {"add": {"effect": "red"}}}).read_toolset()
    with pytest.raises(InvalidConfig, match="neither a Path nor a dictionary"):
        pinned(tmp_path, offering(), "mapping.yaml").read_toolset()


@pytest.mark.parametrize(
    ("tool", "said"),
    [
        ({**ADD, "name": "a/b"}, "tool name 's.a/b'"),
        ({**ADD, "inputSchema": {"type": "array"}}, "tool s.add: the schema's type is 'array'"),
        ({**ADD, "inputSchema": {"type": "object", "$ref": "https://example.com/x"}}, "tool s.add: "),
        ({**ADD, "inputSchema": {"properties": {"a": {"pattern": "("}}}}, "tool s.add: "),
        ({**ADD, "description": "x" * 20_000}, "its description has 20,000 characters"),
    ],
)
def test_a_tool_that_cannot_be_one_is_named_and_can_be_hidden(tmp_path: Path, tool: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidConfig, match=re.escape(said)):
        pinned(tmp_path, offering(tool)).read_toolset()
    both = offering(tool, {**ADD, "name": "other"})
    toolset = pinned(tmp_path, both, {"tools": {tool["name"]: {"hidden": True}}}).read_toolset()
    assert [each.name for each in toolset.tools] == ["s.other"]


def test_an_argument_may_have_any_name(tmp_path: Path) -> None:
    """Those that the function which is called has, too."""
    schema = {"type": "object", "properties": {name: {"type": "string"} for name in ("context", "arguments", "self")}}
    spec = spec_of(tmp_path, {**ADD, "inputSchema": schema})
    assert spec.place.names == {"context", "arguments", "self"}


# Results.


def test_a_result_is_cut_to_its_bound_as_json() -> None:
    """Whatever of it is too much; what does not fit as a whole is left out as a whole."""
    text = {"type": "text", "text": '"' * 50_000}
    whole = {"content": [text], "structuredContent": {"rows": ["x" * 100] * 300}, "isError": True}
    output = output_of(whole, 20_000, Redactor(()))
    assert output["truncated"] and output["is_error"] and "structured" not in output
    assert 15_000 < len(json.dumps(output)) <= 20_000
    notes = [{"type": "resource_link", "uri": f"https://example.com/{n}", "name": "x" * 9_999} for n in range(100)]
    output = output_of({"content": notes}, 1_000_000, Redactor(()))
    assert len(output["attached"]) == 64 and output["truncated"]
    assert {note["name"] for note in output["attached"]} == {"(too long)"}


def test_what_is_cut_ends_in_no_part_of_a_secret_that_its_server_was_not_given() -> None:
    """The tenant has others, which the executor knows."""
    secret = "another-secret-of-this-tenant"
    for before in range(7_460, 7_500):
        text = "x" * before + secret + "y" * 9_000
        output = output_of({"content": [{"type": "text", "text": text}]}, 10_000, Redactor(()))
        shown = normalise(output, 10_000, Redactor([secret])).value()
        assert shown["truncated"] and "another-secret" not in shown["text"], before


def test_a_small_bound_has_room_for_a_text_and_keys_that_are_alike_are_kept() -> None:
    text = {"content": [{"type": "text", "text": "x" * 5_000}]}
    output = output_of(text, 2_000, Redactor(()))
    assert 1_400 < len(output["text"]) <= 1_500 and output["truncated"]
    keys = {"content": [], "structuredContent": {"secret-one": 1, "secret-two": 2}}
    structured = output_of(keys, 2_000, Redactor(["secret-one", "secret-two"]))["structured"]
    assert structured == {"[redacted]": 1, "[redacted] (2)": 2}


@pytest.mark.parametrize("value", [{"a": "\x00\x1b[2J\ud800"}, {"deep": [[[[[[]]]]]]}, None, 3])
def test_a_result_is_always_an_output(value: Any) -> None:
    """And never an error: the call has happened."""
    deep: Any = 1
    for _ in range(60):
        deep = [deep]
    for structured in (value, deep):
        output = output_of(
            {"content": [{"type": "text", "text": "\x00a\ud800"}], "structuredContent": structured}, 9_000, Redactor(())
        )
        assert normalise(output, 9_000).ok and output["text"] == "a"
