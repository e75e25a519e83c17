"""A `Drawing` as static HTML: no script, no address, nothing that is fetched.

`element` is the only thing that makes markup, of the tags and attributes listed here; whatever else it is given is
escaped.  The style stands in the output, for a notebook is read long after it was made; every rule of it is for what
lies within the class `airside`.  A front end that does not trust a notebook strips style and SVG: what these show
stands in the text as well.
"""

from __future__ import annotations

import html
from collections.abc import Iterable

from airside.actors.client.display.drawing import (
    Bar,
    Bars,
    Cell,
    Drawing,
    Fact,
    Lines,
    Part,
    Piece,
    Table,
    Timeline,
    TimelineLane,
    one_line,
)

_TAGS = """
    bdi dd details div dl dt p pre section span style summary table tbody td th thead tr
    svg rect text title
"""
TAGS = frozenset(_TAGS.split())
ATTRIBUTES = frozenset({"class", "height", "role", "rx", "viewBox", "width", "x", "y", "aria-label"})
_NAMES = {"kind": "class", "view_box": "viewBox", "aria_label": "aria-label"}

_WIDTH, _LABEL, _ROW = 720, 150, 20
"""Of a timeline, in pixels: the whole, its lanes' names, and the height of a lane."""

_BAR = 180

STYLE = """
.airside{color-scheme:light dark;font:13px/1.5 system-ui,-apple-system,"Segoe UI",sans-serif;max-width:60rem;
padding:.7rem .9rem;border:1px solid #8885;border-radius:6px;overflow-x:auto;box-sizing:border-box;
color:light-dark(#1f2328,#e6edf3);background:light-dark(#fff,#15191f)}
[data-jp-theme-light="true"] .airside,.vscode-light .airside{color-scheme:light}
[data-jp-theme-light="false"] .airside,.vscode-dark .airside,.vscode-high-contrast .airside{color-scheme:dark}
.airside .head{display:flex;gap:.6rem;align-items:baseline;flex-wrap:wrap}
.airside .name{font-weight:600;font-size:14px;overflow-wrap:anywhere}
.airside .mark{border-radius:4px;padding:0 .45rem;font-weight:600;font-size:12px;
color:light-dark(#57606a,#9da7b3);background:light-dark(#eaeef2,#262c34)}
.airside .mark.good{color:light-dark(#116329,#7ee2a0);background:light-dark(#dafbe1,#12361f)}
.airside .mark.bad{color:light-dark(#a40e26,#ff9b94);background:light-dark(#ffebe9,#43181a)}
.airside .mark.wait{color:light-dark(#7d4e00,#f0c674);background:light-dark(#fff3d6,#3a2a0c)}
.airside dl{display:grid;grid-template-columns:max-content 1fr;gap:.1rem .9rem;margin:.5rem 0}
.airside dt{font-weight:400;color:light-dark(#57606a,#9da7b3);margin:0}
.airside dd{margin:0;overflow-wrap:anywhere}
.airside .part{margin:.6rem 0 0}
.airside .part .title,.airside summary{font-weight:600;margin:0 0 .2rem}
.airside summary{cursor:pointer}
.airside.airside table{border-collapse:collapse;border:none;margin:.1rem 0;font-size:12.5px;width:auto}
.airside.airside thead th{font-weight:500;text-align:left;border:none;border-bottom:1px solid #8886;
padding:.15rem .7rem .15rem 0;color:light-dark(#57606a,#9da7b3);background:none}
.airside.airside tbody tr{background:none}
.airside.airside tbody td{text-align:left;vertical-align:top;border:none;border-bottom:1px solid #8882;
padding:.2rem .7rem .2rem 0;max-width:26rem;overflow-wrap:break-word;overflow:hidden;white-space:normal}
.airside.airside td.number,.airside.airside th.number{text-align:right;white-space:nowrap;
font-variant-numeric:tabular-nums}
.airside .code{font-family:ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace;font-size:12px}
.airside .good{color:light-dark(#116329,#7ee2a0)}
.airside .bad{color:light-dark(#a40e26,#ff9b94)}
.airside .wait{color:light-dark(#7d4e00,#f0c674)}
.airside .off,.airside .note,.airside .more{color:light-dark(#57606a,#9da7b3)}
.airside .note,.airside .more{margin:.35rem 0 0;font-size:12.5px;overflow-wrap:anywhere}
.airside.airside pre{margin:.1rem 0;padding:.4rem .6rem;border:none;border-left:3px solid #8886;color:inherit;
background:light-dark(#f6f8fa,#0d1117);overflow-x:auto;font-size:12px;line-height:1.5;white-space:pre-wrap;overflow-wrap:anywhere}
.airside svg{display:block;max-width:100%;height:auto}
.airside svg text{fill:currentColor;font:12px system-ui,sans-serif}
.airside svg .track{fill:#8881}
.airside .p-queue{fill:#8b949e}.airside .p-plan{fill:#8f7ee7}.airside .p-recall{fill:#2fa7a0}
.airside .p-reserve{fill:#b08bd9}.airside .p-decide{fill:#3b82f6}.airside .p-gate{fill:#c98a1b}
.airside .p-people{fill:#e0784a}.airside .p-execute{fill:#2da44e}.airside .p-branches{fill:#5b9bd5}
.airside .p-doubt{fill:#d6455d}.airside .p-conclude{fill:#6e7781}
.airside .b-good{fill:#2da44e}.airside .b-bad{fill:#d6455d}.airside .b-wait{fill:#c98a1b}.airside .b-off{fill:#8b949e}
.airside .b-{fill:#3b82f6}
""".strip()


class Markup(str):
    """HTML that `element` made."""

    __slots__ = ()

    def __html__(self) -> str:
        """Return it as it is: what asks for this escapes what has no such method."""
        return self


def element(tag: str, *inside: str | Markup, **attributes: str | int | float) -> Markup:
    """Return an element; what is no `Markup` is text, and is escaped.  `kind` is its class."""
    assert tag in TAGS, tag
    made = [f"<{tag}"]
    for name, value in attributes.items():
        written = _NAMES.get(name, name)
        assert written in ATTRIBUTES, written
        if value != "":
            made.append(f' {written}="{html.escape(one_line(str(value)))}"')
    made.append(">")
    made += [text if isinstance(text, Markup) else html.escape(one_line(text)) for text in inside]
    made.append(f"</{tag}>")
    return Markup("".join(made))


def isolated(text: str) -> Markup:
    """Return a text that does not turn round what stands beside it, whichever way it is written."""
    return element("bdi", text)


def to_html(drawing: Drawing) -> str:
    """Return a drawing as HTML."""
    head = [element("span", isolated(drawing.title), kind="name")]
    if drawing.status:
        head.append(element("span", isolated(drawing.status), kind=f"mark {drawing.tone}".strip()))
    return element(
        "section",
        element("style", Markup(STYLE)),
        element("div", *head, kind="head"),
        *([element("dl", *_facts(drawing.facts))] if drawing.facts else []),
        *(element("div", *_part(part), kind="part") for part in drawing.parts),
        *(element("p", isolated(note), kind="note") for note in drawing.notes),
        kind="airside",
    )


def part_to_html(part: Part) -> Markup:
    """Return one part of a drawing, for a page that has the style."""
    return element("div", element("div", *_part(part), kind="part"), kind="airside")


def _facts(facts: Iterable[Fact]) -> list[Markup]:
    return [made for fact in facts for made in (element("dt", fact.name), element("dd", isolated(fact.text)))]


def _part(part: Part) -> list[Markup]:
    match part:
        case Table():
            return _table(part)
        case Bars():
            return _bars(part)
        case Timeline():
            return _timeline(part)
        case Lines():
            return _lines(part)


def _title(text: str) -> list[Markup]:
    return [element("p", isolated(text), kind="title")] if text else []


def _more(count: int, what: str = "more") -> list[Markup]:
    return [element("p", f"… and {count:,} {what}", kind="more")] if count else []


def _table(part: Table) -> list[Markup]:
    numbers = {place for row in part.rows for place, cell in enumerate(row) if cell.kind == "number"}
    head = (element("th", name, kind="number" if i in numbers else "") for i, name in enumerate(part.head))
    rows = (element("tr", *map(_cell, row)) for row in part.rows)
    made = element("table", element("thead", element("tr", *head)), element("tbody", *rows))
    if part.is_folded:
        return [
            element(
                "details", element("summary", f"{part.title} ({len(part.rows) + part.more:,})"), made, *_more(part.more)
            )
        ]
    return [*_title(part.title), made, *_more(part.more)]


def _cell(cell: Cell) -> Markup:
    kind = " ".join(filter(None, (cell.kind if cell.kind != "text" else "", cell.tone)))
    return element("td", isolated(cell.text), kind=kind)


def _bars(part: Bars) -> list[Markup]:
    longest = max((bar.count for bar in part.bars), default=0) or 1
    numbers = {place for bar in part.bars for place, cell in enumerate(bar.cells) if cell.kind == "number"}
    first, count, *others = part.head
    head = [element("th", first), element("th", count, kind="number"), element("td", "")]
    head += [element("th", name, kind="number" if i in numbers else "") for i, name in enumerate(others)]
    rows = [_bar(bar, longest) for bar in part.bars]
    return [element("table", element("thead", element("tr", *head)), element("tbody", *rows)), *_more(part.more)]


def _bar(bar: Bar, longest: int) -> Markup:
    width = max(2, round(_BAR * bar.count / longest))
    drawn = element("rect", x=0, y=3, width=width, height=12, rx=2, kind=f"b-{bar.tone}")
    picture = element("svg", drawn, width=_BAR, height=18, view_box=f"0 0 {_BAR} 18", role="img", aria_label=bar.label)
    label = element("td", isolated(bar.label), kind=bar.tone)
    return element(
        "tr", label, _cell(Cell(f"{bar.count:,}", "", "number")), element("td", picture), *map(_cell, bar.cells)
    )


def _timeline(part: Timeline) -> list[Markup]:
    height = _ROW * len(part.lanes)
    lanes = [made for place, lane in enumerate(part.lanes) for made in _lane(lane, place)]
    said = f"the run's time: {part.total}"
    picture = element(
        "svg", *lanes, width=_WIDTH, height=height, view_box=f"0 0 {_WIDTH} {height}", role="img", aria_label=said
    )
    return [picture, *([element("p", part.note, kind="note")] if part.note else [])]


def _lane(lane: TimelineLane, place: int) -> list[Markup]:
    top, right = place * _ROW, 110
    wide = _WIDTH - _LABEL - right
    rects = [_piece(each, lane.phase, top, wide) for each in lane.pieces]
    return [
        element("text", lane.phase, x=0, y=top + 14),
        element("rect", x=_LABEL, y=top + 4, width=wide, height=12, kind="track"),
        *rects,
        element("text", lane.took + (f" in {lane.count}" if lane.count > 1 else ""), x=_WIDTH - right + 8, y=top + 14),
    ]


_COLOURS = {"wait for people": "people", "in doubt": "doubt"}


def _piece(each: Piece, phase: str, top: int, wide: int) -> Markup:
    x = _LABEL + each.start * wide
    width = max(1.5, (each.end - each.start) * wide)
    colour = _COLOURS.get(phase, phase)
    said = element("title", each.label)
    return element("rect", said, x=round(x, 1), y=top + 4, width=round(width, 1), height=12, rx=1.5, kind=f"p-{colour}")


def _lines(part: Lines) -> list[Markup]:
    shown = [element("span", isolated(line.text), kind=line.tone) for line in part.lines]
    if part.gap:
        shown.insert(part.gap_at, element("span", f"… {part.gap:,} lines are not shown", kind="off"))
    body = Markup("\n".join(shown))
    return [*_title(part.title), element("pre", body, kind="code")]
