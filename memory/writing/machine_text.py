"""What machines write for machines: markup, logs, code, traces and errors; and what a JSON text says in words."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import msgspec

from airside.stack.reasons import MemoryCode

_DOCUMENT = re.compile(r"<!doctype|<\?xml|<(?:html|script|style|svg|iframe|body|head)\b|<!--", re.IGNORECASE)
_TAG = re.compile(r"</?([a-z][a-z0-9:-]*)(\s[^<>]{0,500})?/?>", re.IGNORECASE)
_SET_OFF = frozenset(("b", "i", "u", "em", "strong", "br", "sub", "sup", "mark", "small", "s", "code"))
"""Tags that only set a word off: a fact may have them."""

_ENTITY = re.compile(r"&(?:[a-z]{2,8}|#\d{1,6});")
_TRACE = re.compile(
    r"Traceback \(most recent call last\)|^\s*File \"[^\"\n]+\", line \d+|^\s+at [\w.$<>/\[\]` ]+(?:\(| in )"
    r"|^goroutine \d+ \[|^Caused by: |^\s*\w[\w.]*(?:Error|Exception)\b: .*\n\s+at ",
    re.MULTILINE,
)
_ERROR = re.compile(
    r"^\W{0,4}(?:[\w$]+[./:])*[A-Z]\w*(?:Error|Exception|Fault|Panic)\b\s*(?:[:(\[]|\Z)"
    r"|^(?:npm ERR!|fatal:|FATAL:|panic:|error\[|E\d{3,5}:|ORA-\d+|SQLSTATE|HTTP/\d|(?:\w+: ){1,2}command not found"
    r"|[\w/.-]+: line \d+: |ERROR \d+|Error \w+ing )",
    re.MULTILINE,
)
_UNCAUGHT = "Traceback (most recent call last)"
"""What `_TRACE` finds anywhere; all else of it and of `_ERROR` begins a line, so one line is looked at there alone."""

_LEVEL = r"(?:TRACE|DEBUG|INFO|NOTICE|WARN(?:ING)?|ERROR|CRITICAL|FATAL)"
_LOG = re.compile(
    rf"^\W?(?:\d{{4}}[-/]\d\d[-/]\d\d[T ]\d\d:\d\d[\d:.,]*(?:Z|[+-]\d\d:?\d\d)?\W{{1,4}}\[?{_LEVEL}\b"
    rf"|\[\s*{_LEVEL}\s*\]|{_LEVEL}[: ](?:[\w.]+:|\d{{4}}-)|(?:\w+=\S+ )?(?:level|lvl)=\w+|time=\"?\d{{4}}-"
    r"|\d{1,3}(?:\.\d{1,3}){3} \S+ \S+ \[|[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d \S+ [\w./-]+(?:\[\d+\])?:"
    r"|\[\d\d(?::\d\d){2}[.\d]*\] )",
)
_CODE = re.compile(
    r"^\s*(?:(?:async )?def \w+\s*\(|class \w+\s*[(:{]|import [\w.]+(?: as \w+)?;?$|from [\w.]+ import |#include\b"
    r"|(?:export |async )*function\b.*[({]|(?:const|let|var) \w+\s*[:=]|(?:public|private|protected|static) .*[(){};]$"
    r"|(?:if|for|while|switch)\s*\(.*\)|return\b.*;$|[})\]]+[;,]?$|\w[\w.]*\(.*\);?$|[\w.\[\]]+\s*[-+*/]?=\s*\S.*;$"
    r"|```\w*$|[a-z_][\w.]* ?[-+*/]?= ?[\w.]*[\[({].*[\])}]$"
    r"|[.#]?\w[\w\s.#:>-]{0,60}\{[^{}]*[:;][^{}]*\}?$|SELECT\b.+\bFROM\b|INSERT INTO\b|UPDATE \w+ SET\b|DELETE FROM\b"
    r"|(?:CREATE|DROP|ALTER) (?:TABLE|DATABASE|INDEX)\b|(?:sudo |\$ )?(?:rm -\w|curl -|curl http|wget |chmod |git \w+ -"
    r"|docker \w+|kubectl \w+|pip install|npm \w+))",
)
_PREVIEW = 4_000
"""Characters of a text by whose lines it is judged."""

_FAILURE = "error errors exception exceptions traceback stacktrace stack_trace err fault"
_ERROR_KEYS = frozenset(_FAILURE.split())
_META = """
status ok success successful code count total total_count size length next previous prev page pages per_page limit
offset cursor next_cursor has_more hasmore timestamp took took_ms elapsed_ms duration_ms request_id requestid trace_id
traceid id uuid found message_id version type object row_count rows_affected affected_rows num_results
exit_code returncode
"""
_META_KEYS = frozenset(_META.split())
"""Keys that say how it went, or count, and tell nothing of the matter."""

_WENT_WELL = "ok okay success succeeded successful done completed complete finished true none null empty n/a"
_ROUTINE = frozenset(_WENT_WELL.split())
_FAILED = frozenset(("error", "failed", "failure", "fail", "exception", "timeout"))
_MAX_LEAVES = 500


def machine_code(text: str) -> MemoryCode | None:
    """Return why a text is not for people, None if it may be."""
    if _is_error_text(text):
        return MemoryCode.ERROR_TEXT
    if ("<" in text or "&" in text) and _is_markup(text):
        return MemoryCode.MACHINE_TEXT
    lines = [line for line in text[:_PREVIEW].splitlines() if line.strip()]
    written = sum(bool(_LOG.match(line) or _CODE.match(line)) for line in lines)
    return MemoryCode.MACHINE_TEXT if lines and written * 2 >= len(lines) else None


def _is_error_text(text: str) -> bool:
    if "\n" in text:
        return bool(_TRACE.search(text) or _ERROR.search(text))
    return _UNCAUGHT in text or bool(_TRACE.match(text) or _ERROR.match(text))


def _is_markup(text: str) -> bool:
    if _DOCUMENT.search(text) or len(_ENTITY.findall(text)) > 1:
        return True
    return any(match[1].lower() not in _SET_OFF or (match[2] or "").strip(" /") for match in _TAG.finditer(text))


def without_tags(text: str) -> str:
    """Return a text without the tags that only set words off."""
    return _TAG.sub("", text) if "<" in text else text


def in_words(text: str) -> str | MemoryCode:
    """Return what a JSON text says, a line a value, or why it says nothing; any other text as it is."""
    stripped = text.strip()
    if not (stripped[:1] in ("{", "[") or stripped in ("null", "true", "false") or _is_quoted(stripped)):
        return text
    try:
        value = msgspec.json.decode(stripped)
    except RecursionError:
        return MemoryCode.MACHINE_TEXT
    except msgspec.DecodeError:
        return text
    if isinstance(value, str):
        return value
    if _is_error(value):
        return MemoryCode.ERROR_TEXT
    lines: list[str] = []
    for line in _lines(value):
        lines.append(line)
        if len(lines) == _MAX_LEAVES:
            break
    return "\n".join(lines) or MemoryCode.NO_RESULT


def _is_quoted(text: str) -> bool:
    return len(text) > 1 and text[0] == text[-1] == '"'


def _is_error(value: Any) -> bool:
    """Whether an answer says that it failed."""
    if not isinstance(value, dict):
        return False
    keys = {key.lower(): each for key, each in value.items()}
    if any(keys.get(name) not in (None, "", False, 0, [], {}) for name in _ERROR_KEYS & keys.keys()):
        return True
    status = keys.get("status", keys.get("status_code", keys.get("code")))
    is_failed = isinstance(status, str) and status.lower() in _FAILED
    return is_failed or (type(status) is int and 400 <= status < 600) or keys.get("success", keys.get("ok")) is False


def _lines(value: Any) -> Iterator[str]:
    todo: list[tuple[str, Any]] = [("", value)]
    while todo:
        name, each = todo.pop()
        if isinstance(each, dict):
            todo.extend((str(key), inner) for key, inner in reversed(each.items()))
        elif isinstance(each, list):
            todo.extend((name, inner) for inner in reversed(each))
        elif not _is_meta(name.lower(), each):
            yield f"{name.replace('_', ' ')}: {each}" if name else str(each)


def _is_meta(name: str, value: Any) -> bool:
    if value is None or value == "":
        return True
    is_routine = not isinstance(value, str) or value.lower() in _ROUTINE
    return name in _META_KEYS and is_routine
