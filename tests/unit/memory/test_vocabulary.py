"""The terms by which texts are found, in several languages."""

from __future__ import annotations

import pytest

from airside.memory.comparison.relation import has_same_stems
from airside.memory.search.vocabulary import named, terms
from airside.memory.text import stem, stems


@pytest.mark.parametrize(
    ("question", "text"),
    [
        ("Which supplier is late?", "the suppliers were late"),
        ("Wer gibt die Rechnung frei?", "Die Rechnungen gibt Herr Wegener frei"),
        ("Quels sont les rendez-vous de la patiente ?", "Les patientes ont des rendez-vous"),
        ("¿Qué habitaciones están libres?", "La habitación está libre"),
        ("Quali fatture sono pagate?", "La fattura è pagata"),
        ("Quais são os quartos livres?", "O quarto está livre"),
        ("Welke kamers zijn vrij?", "De kamer is vrij"),
    ],
)
def test_inflected_words_of_a_language_are_one_term(question: str, text: str) -> None:
    assert len(set(terms(question)) & set(terms(text))) >= 1
    assert set(terms(question)) & set(terms(text)) == set(terms(question))


def test_common_words_of_the_text_s_own_language_are_no_terms() -> None:
    assert terms("Wann war das?") == terms("When was that?") == terms("Où est-ce ?") == []
    assert "war" in terms("when was the war"), "which is a common word in German, and none in English"


def test_what_an_apostrophe_parts_is_not_lost() -> None:
    assert terms("l'immeuble de la rue") == terms("immeuble rue dans la")
    assert terms("Kim's order") == terms("order of Kim")[::-1]


@pytest.mark.parametrize(
    ("word", "plain"),
    [
        ("l'adresse", "adresse"), ("d\u2019Ivry", "Ivry"), ("dell'ordine", "ordine"), ("jusqu'ici", "ici"),
        ("Kim's", "Kim"), ("o'clock", "clock"), ("don't", "don"), ("l'", "l"),
    ],
)  # fmt: skip
def test_a_stem_is_of_the_word_and_not_of_what_is_drawn_to_it(word: str, plain: str) -> None:
    assert stem(word) == stem(plain)


def test_two_things_that_are_elided_alike_are_two() -> None:
    assert not has_same_stems("l'adresse de Zoe", "l'ordre de Zoe")
    assert set(stems("l'adresse")).isdisjoint(stems("l'ordre"))


def test_text_without_spaces_is_found_by_pairs_of_characters() -> None:
    assert set(terms("上海仓库")) == {"上海", "海仓", "仓库"}
    assert {"上海", "仓库"} <= set(terms("下午能把货送到上海仓库吗?"))
    assert {"温泉", "温度"} <= set(terms("温泉の温度は四十一度に保ちます。"))
    assert terms("山") == ["山"]
    assert {"vg", "2206", "仓库"} <= set(terms("仓库 VG 2206"))


def test_names_are_what_has_a_capital_within_a_text_or_a_digit() -> None:
    assert named("When does Kim Larsen get order 88213?") == ["kim", "larsen", "88213"]
    assert named("Wann kommt die Rechnung 4711 von der Firma?") == ["4711"], "German writes every noun with a capital"
    assert named("上海 A4 仓库") == ["a4"]
    assert named("") == named("The") == []
