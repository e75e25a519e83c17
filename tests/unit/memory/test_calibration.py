"""What scores mean: their parts, small tenants, the gate on the question, fitting, and files of calibrations."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from airside.memory.embedders.embedder import Vectors
from airside.memory.evaluation.question_sets import calibrated, kinds_of, read_questions
from airside.memory.in_memory import HashingEmbedder
from airside.memory.rules import MemoryRules
from airside.memory.search.calibration import Calibration, Scores, load_calibration, save_calibration
from airside.memory.search.index import Bounds, Query, TenantIndex
from airside.stack.errors import InvalidConfig, InvalidInput

SHIPPED = [load_calibration("all-MiniLM-L6-v2"), load_calibration("all-MiniLM-L6-v2-int8"), load_calibration("generic")]
THINGS = """
    kettle lamp chair ladder carpet mirror bucket candle drawer pillow blanket hammer spanner whistle teapot
""".split()  # noqa: SIM905
PLACES = ["attic", "cellar", "garage", "kitchen", "hallway"]


def score_of(calibration: Calibration, scores: Scores, place: int) -> float:
    """Return one record's score."""
    relevance = calibration.relevance(scores)
    order = np.argsort(-relevance, kind="stable")
    return float(calibration.chances(scores, relevance, order).records[list(order).index(place)])


PARTS = st.lists(st.tuples(st.floats(-0.2, 0.9), st.floats(0, 10), st.floats(0, 1)), min_size=1, max_size=40)


@settings(max_examples=300, deadline=None)
@given(parts=PARTS, more=st.floats(0.01, 0.3), has_names=st.booleans(), which=st.sampled_from(range(len(SHIPPED))))
@example(parts=[(0.0, 1e-45, 0.0)], more=0.25, has_names=False, which=0)
def test_a_record_that_is_more_like_the_question_has_no_lower_score(
    parts: list[tuple[float, float, float]], more: float, has_names: bool, which: int
) -> None:
    """Be it in its cosine, its BM25 or the names it has, beside the same others."""
    cosines, bm25, names = np.array(parts, dtype=np.float32).T
    scores = Scores(cosines, bm25, 11.0, names, has_names)
    before = score_of(SHIPPED[which], scores, 0)
    for part, by, most in (("cosines", more, 1.0), ("bm25", 10 * more, 11.0), ("names", more, 1.0)):
        raised = getattr(scores, part).copy()
        raised[0] = min(raised[0] + by, most)
        assert score_of(SHIPPED[which], scores._replace(**{part: raised}), 0) >= before - 0.005, part


def index_of(texts: list[str], calibration: Calibration) -> TenantIndex:
    """Return an index over texts."""
    from tests.unit.memory.test_memory import index_of as made

    index = made(texts)
    index._calibration = calibration
    return index


def found(index: TenantIndex, question: str, least: float | None = None) -> list[str]:
    """Return the texts that a question finds."""
    query = Query.of(question, HashingEmbedder().embed([question])[0])
    return [r.text for r in index.search(query, Bounds(4, least, "internal", 1))]


@pytest.mark.parametrize("calibration", SHIPPED, ids=lambda c: c.embedder)
@pytest.mark.parametrize("count", [1, 2, 5, 60])
def test_the_gate_lets_through_what_a_record_answers_however_few_there_are(
    calibration: Calibration, count: int
) -> None:
    others = [f"the {thing} in the {place} belongs to somebody" for thing in THINGS for place in PLACES]
    index = index_of(["the courier Merganser never delivers before nine", *others][:count], calibration)
    assert found(index, "when does the courier Merganser deliver")[0].startswith("the courier Merganser")


@pytest.mark.parametrize("calibration", SHIPPED, ids=lambda c: c.embedder)
def test_a_question_that_has_nothing_of_any_record_gets_nothing_unless_it_asks_for_a_score(
    calibration: Calibration,
) -> None:
    index = index_of([f"the {thing} in the {place} is old" for thing in THINGS for place in PLACES], calibration)
    assert found(index, "which moons has Jupiter") == []
    assert len(found(index, "which moons has Jupiter", 0.0)) == 4
    rules = MemoryRules(min_score=0.0)
    assert found(_with(index, rules), "which moons has Jupiter") != [], "the app asked for a score"


def _with(index: TenantIndex, rules: MemoryRules) -> TenantIndex:
    index._rules = rules
    return index


def test_an_empty_tenant_finds_nothing() -> None:
    assert found(TenantIndex(256, MemoryRules(), SHIPPED[0]), "anything") == []


# Fitting.


def lines_of(group: str, words: list[str], *, unanswerable: bool) -> list[dict[str, object]]:
    """Return a group of a set: what lies where, asked of one after the other."""
    lines: list[dict[str, object]] = []
    for at, thing in enumerate(words):
        text = f"the {thing} of {group} is in the {PLACES[at % len(PLACES)]}"
        lines.append({"type": "document", "group": group, "id": f"d{at}", "text": text})
        question = f"where do I find the {thing}"
        lines.append({"type": "query", "group": group, "id": f"q{at}", "text": question, "relevant": [f"d{at}"]})
    for at in range(len(words) if unanswerable else 0):
        none = f"how many grams of sugar for recipe {at}"
        lines.append({"type": "query", "group": group, "id": f"u{at}", "text": none, "relevant": []})
    return lines


def write(path: Path, *groups: list[dict[str, object]]) -> Path:
    """Write a set."""
    path.write_text("\n".join(json.dumps(line) for group in groups for line in group) + "\n")
    return path


@pytest.fixture
def sets(tmp_path: Path) -> list[Path]:
    """Return two kinds of two groups each."""
    one = write(
        tmp_path / "one.jsonl", lines_of("a", THINGS, unanswerable=True), lines_of("b", THINGS, unanswerable=True)
    )
    two = write(
        tmp_path / "two.jsonl", lines_of("a", THINGS[::-1], unanswerable=True), lines_of("b", THINGS, unanswerable=True)
    )
    return [one, two]


def test_a_calibration_is_fitted_on_kinds_and_measured_on_those_it_has_not_seen(
    sets: list[Path], tmp_path: Path
) -> None:
    fitted = calibrated(sets, HashingEmbedder(), "mine")
    assert fitted.fitted_on == ("one", "two") and fitted.questions == 120 and 0 <= fitted.error < 0.2
    place = save_calibration(fitted, tmp_path / "calibrations")
    assert load_calibration("mine", tmp_path / "calibrations") == fitted and place.name == "mine.json"
    texts = [d.text for d in read_questions(sets[0])["a"].documents.values()]
    index = index_of(texts, fitted)
    assert found(index, "where do I find the hammer")[0].startswith("the hammer")
    assert found(index, "how many grams of sugar for recipe 99") == []


def test_where_every_question_has_an_answer_those_of_other_tenants_have_none(tmp_path: Path) -> None:
    kinds_of_things = [[f"{colour} {thing}" for colour in ("red", "green") for thing in THINGS[at::2]] for at in (0, 1)]
    both = [lines_of(name, things, unanswerable=False) for name, things in zip("ab", kinds_of_things, strict=True)]
    path = write(tmp_path / "set.jsonl", *both)
    asked = kinds_of([path], HashingEmbedder())["set"]
    assert [sum(each.relevant.any() == answered for each in asked) for answered in (True, False)] == [30, 30]
    with pytest.raises(InvalidInput, match="questions with relevant records are too few"):
        calibrated([path], HashingEmbedder(), "mine")  # either half is fitted on by itself


def test_a_set_may_say_that_nothing_answers_a_question_but_not_all(tmp_path: Path) -> None:
    read = read_questions(write(tmp_path / "a.jsonl", lines_of("a", THINGS, unanswerable=True)))
    assert read["a"].questions["u0"].relevant == ()
    none = [{"type": "query", "group": "a", "id": "q", "text": "what?", "relevant": []}]
    with pytest.raises(InvalidInput, match="no queries with relevant documents"):
        read_questions(write(tmp_path / "b.jsonl", [lines_of("a", THINGS, unanswerable=False)[0]], none))
    with pytest.raises(InvalidInput, match="query 'q' of group 'a' has no document 'd77'"):
        read_questions(
            write(tmp_path / "c.jsonl", lines_of("a", THINGS, unanswerable=False), [{**none[0], "relevant": ["d77"]}])
        )
    with pytest.raises(InvalidInput, match="group 'z' has queries and no documents"):
        read_questions(
            write(tmp_path / "d.jsonl", lines_of("a", THINGS, unanswerable=False), [{**none[0], "group": "z"}])
        )


def test_too_few_questions_and_two_files_of_one_name_are_refused(tmp_path: Path, sets: list[Path]) -> None:
    few = write(
        tmp_path / "few.jsonl",
        lines_of("a", THINGS[:3], unanswerable=True),
        lines_of("b", THINGS[:3], unanswerable=True),
    )
    with pytest.raises(InvalidInput, match="too few: give 20 at least"):
        calibrated([few], HashingEmbedder(), "mine")
    (tmp_path / "other").mkdir()
    again = write(tmp_path / "other" / "one.jsonl", lines_of("a", THINGS, unanswerable=True))
    with pytest.raises(InvalidInput, match="two files have one name"):
        calibrated([sets[0], again], HashingEmbedder(), "mine")


# Files.


def test_a_calibration_of_another_version_or_shape_is_refused_with_what_to_do(tmp_path: Path) -> None:
    good = msgspec.to_builtins(SHIPPED[0])
    old = {k: v for k, v in good.items() if k != "version"}
    for text, said in (
        (json.dumps(old), "is a calibration of version 1, and this is version 2"),
        (json.dumps({**good, "version": 3}), "is a calibration of version 3"),
        (json.dumps({**good, "blend": [1.0]}), "it has other terms"),
        (json.dumps({**good, "usual": [0.1, 0.0]}), "it has other terms"),
        (json.dumps({**good, "gate": "high"}), "is no calibration"),
        ("no JSON", "is no calibration"),
        ("[]", "is no calibration"),
    ):
        (tmp_path / "all-MiniLM-L6-v2.json").write_text(text)
        with pytest.raises(InvalidConfig, match=said) as raised:
            load_calibration("all-MiniLM-L6-v2", tmp_path)
        assert "fit it again with `airside memory calibrate`" in str(raised.value)


def test_an_embedder_without_a_calibration_has_the_generic_one_which_looks_at_no_cosine_itself() -> None:
    generic = load_calibration("nobody:knows-it")
    assert generic.embedder == "generic" and generic.relative
    cosines = np.array([0.1, 0.3, 0.2, 0.15, 0.6] * 10, dtype=np.float32)
    none: Vectors = np.zeros(50, dtype=np.float32)
    low, high = (Scores(c, none, 1.0, none, False) for c in (cosines, cosines * np.float32(0.5) + np.float32(0.5)))
    places = np.array([4, 1, 2])
    chances = [generic.chances(each, generic.relevance(each), places) for each in (low, high)]
    assert np.allclose(chances[0].records, chances[1].records, atol=1e-4)
    assert chances[0].answered == pytest.approx(chances[1].answered, abs=1e-4)
