"""What of a text tells something: sentences that only greet, offer, refuse, ask, guess or report nothing are passed over.

The phrases stand in `speech_acts.yaml`.  Whatever is left must have words that inform; else the text is refused with the
code of what it is.  A guess and a question take their sentence with them, a greeting only its own clause.
"""

from __future__ import annotations

import re
from functools import cache
from typing import NamedTuple

from airside.memory.text import normal, words
from airside.memory.writing.phrases import PhraseTable, Reading, folded, load_table, read
from airside.stack.reasons import MemoryCode

_SENTENCE_END = re.compile(r"(?<=[.!?\u2026\u0964\u061f])[\"'\u201d\u2019)\]]*\s+|(?<=[\u3002\uff01\uff1f])|[\n\r\u2028\u2029]+")
_CLAUSE_END = re.compile(r"[,;:\uff0c\u3001\uff1b\uff1a]")
_ASKS = re.compile(r"[?\uff1f\u061f\u037e]\W*\Z")
_QUOTES = re.compile(r"[?\uff1f]\s*[\"'\u201d\u2019\u300d\u00bb]\W*\Z")
_UNSPACED = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff]")

_STOP = """
a an the this that these those it its he him his she her hers they them their theirs i me my mine we us our ours you your
yours is are was were be been being am do does did done has have had having will would shall should can could may might must
and or but nor so if then than as of in on at to for from by with about into onto over under up down out off above below
not no yes only just very too also again here there now what which who whom whose when where why how all any some each
every both few more most other another such own same one ones thing things stuff something someone anything somehow well
good nice like said s t d ll re ve m see way lot bit really quite
der die das den dem des ein eine einen einem einer eines und oder aber ist sind war waren sein hat haben hatte ich du er sie
es wir ihr mich mir ihn ihm uns euch ihnen nicht kein keine keinen ja nein zu zum zur im am an auf in aus bei mit nach von
vor fur uber unter auch noch nur schon so wie was wer wo wann dass
le la les l un une des du de d et ou mais est sont etait il elle on nous vous ils elles je j tu me m te t se s ne n pas que
qu qui ce c cette ces cet dans sur sous avec sans pour par au aux en y a oui non plus tres
el los las lo una uno unos unas del al y o pero es son era yo tu usted ella nosotros ellos ellas mi mis su sus se con sin por
para no si que como mas muy este esta esto ese esa hay ha han
il lo gli i uno e ed o ma sono era io lui lei noi voi loro mio mia suo sua si ci vi ne non che chi di da a in con su per tra
fra del della dei delle dal dalla nel nella al alla ai alle piu molto questo questa c
os as um uma uns umas e ou mas sao eu ele ela eles elas meu minha seu sua no na nos nas do da dos das ao aos em com sem por
para nao sim que mais muito isso este esta
de het een en of maar zijn was waren heb heeft hebben ik jij hij zij ze wij we jullie mij mijn jouw hem haar ons hun niet
geen ja nee te op aan uit bij met naar van voor over onder ook nog maar al zo als wat wie waar wanneer dat dit die er
和 的 了 是 在 我 你 您 他 她 它 们 我们 你们 他们 这 那 不 也 都 就 与 及 个 有
は が を に で と も の へ や か です ます でした ました る た て だ い この その あの それ これ
"""
_KEYBOARD = ("qwertyuiop", "qwertzuiop", "azertyuiop", "asdfghjkl", "qsdfghjklm", "zxcvbnm", "yxcvbnm", "wxcvbn")

_CODES = {
    "courtesy": MemoryCode.COURTESY,
    "offer": MemoryCode.OFFER,
    "promise": MemoryCode.OFFER,
    "no_answer": MemoryCode.NO_ANSWER,
    "question": MemoryCode.QUESTION,
    "hedge": MemoryCode.GUESS,
    "acknowledgement": MemoryCode.ACKNOWLEDGEMENT,
    "no_result": MemoryCode.NO_RESULT,
    "error_text": MemoryCode.ERROR_TEXT,
}


class Said(NamedTuple):
    """What a text tells: the words that inform, and why the rest of it was passed over."""

    informing: list[str]
    passed_over: MemoryCode | None


def what_is_said(text: str) -> Said:
    """Return what of a text tells something."""
    informing: list[str] = []
    code: MemoryCode | None = None
    for sentence in _SENTENCE_END.split(text):
        if sentence.strip():
            found, label = _sentence(sentence)
            informing += found
            code = code or (_CODES[label] if label else None)
    return Said(informing, code)


def _sentence(sentence: str) -> tuple[list[str], str | None]:
    """Return the words of a sentence that inform, and what was passed over."""
    reading = read(folded(sentence))
    label = _table("sentence").label(reading) or _found_anywhere("sentence", sentence)
    if label is None and _ASKS.search(sentence) and not _QUOTES.search(sentence):
        label = "question"
    if label is not None:
        return [], label
    if _UNSPACED.search(sentence):
        return _clauses(sentence)
    rest, opened = _table("words").without(reading)
    rest, passed = _table("clause").without(rest, to_clause_end=True)
    return _informing(rest), opened or passed


def _clauses(sentence: str) -> tuple[list[str], str | None]:
    """Return the same of a sentence that is written without blanks."""
    found: list[str] = []
    label = None
    for clause in _CLAUSE_END.split(sentence):
        passed = _found_anywhere("clause", clause)
        label = label or passed
        if passed is None:
            found += [word for word in words(clause) if word not in _stop_words()]
    return found, label


def _informing(reading: Reading) -> list[str]:
    return [word for word in reading.text.split() if word != "," and word not in _stop_words() and not _typed(word)]


def _typed(word: str) -> bool:
    """Whether somebody ran his fingers along a row of keys."""
    return len(word) >= 4 and any(word in row or word in row[::-1] for row in _KEYBOARD)


def _found_anywhere(scope: str, text: str) -> str | None:
    if not _UNSPACED.search(text):
        return None
    even = normal(text)
    return next((label for label, pattern in _anywhere(scope) if pattern.search(even)), None)


# Tables, each made once.


@cache
def _table(scope: str) -> PhraseTable:
    """Return the phrases that take so much with them."""
    acts = load_table("speech_acts.yaml")
    return PhraseTable({label: act[scope] for label, act in acts.items() if scope in act})


@cache
def _anywhere(scope: str) -> list[tuple[str, re.Pattern[str]]]:
    acts = load_table("speech_acts.yaml")
    return [(label, re.compile("|".join(act["anywhere"]))) for label, act in acts.items() if scope in act and "anywhere" in act]


@cache
def _stop_words() -> frozenset[str]:
    return frozenset(_STOP.split()) | frozenset(folded(_STOP).split())
