"""The terms by which a text is found: stems of its words in its own language, and pairs of characters without spaces.

A text's language is that of most of its common words; those are left out, and the others are stemmed as the language
is (Snowball).  Where words are written without spaces between them (Chinese, Japanese, Thai, ...), every two characters
that stand together are a term, which finds as much as a segmenter does and needs no dictionary.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from airside.memory.text import ENGLISH, STOP_WORDS, bare, capitalised, normal, stem, words

_COMMON = {
    "german": """
        ab aber alle allem allen aller alles als also am an andere anderen auch auf aus bei beim bin bis bist da dabei
        damit dann das dass dem den denn der deren des dessen die dies diese diesem diesen dieser dieses dir doch dort
        du durch ein eine einem einen einer eines er es etwas euch euer für gegen gibt habe haben hat hatte hatten hier
        ihm ihn ihnen ihr ihre ihrem ihren ihrer im in ins ist ja jede jeden jeder jedes kann kannst können könnte man
        mein meine meinem meinen meiner mich mir mit muss musste müssen nach noch nun nur ob oder schon sehr sein seine
        seinem seinen seiner seit sich sie sind so soll sollen sollte über um und uns unser unsere unserem unseren
        unserer unter viel vom von vor wann war waren warum was weil welche welchem welchen welcher welches wem wen wenn
        wer werde werden wessen weshalb wie wieder wieso will wir wird wo wofür woher wohin womit woraus worauf wovon
        wozu wurde wurden zu zum zur zwischen
    """,
    "french": """
        a ai au aux avec c ce cela ces cet cette ceux combien comme comment d dans de des dont du elle elles en es est
        et été être eu faut il ils j je l la le les leur leurs lui m ma mais me mes moi mon n ne nos notre nous on ont
        ou où par pas peut plus pour pourquoi qu quand que quel quelle quelles quels qui quoi s sa se sera ses si son
        sont sur ta te tes toi ton tous tout toute toutes tu un une vos votre vous y
    """,
    "spanish": """
        a al algo ante como cómo con cual cuál cuáles cuando cuándo cuanta cuánta cuántas cuanto cuánto cuántos de del
        desde donde dónde durante e el él ella ellas ellos en entre era eran es esa ese eso esta está están estas este
        esto estos fue fueron ha hace han hasta hay la las le les lo los más me mi mis muy nos nosotros o otra otro para
        pero por porque puede pueden que qué quien quién quiénes se sea ser será si sí sin sobre son su sus también te
        tiene tienen todo todos tu tus un una unas uno unos y ya yo
    """,
    "italian": """
        a ad agli ai al alla alle allo anche c che chi ci come con cosa cui da dagli dai dal dalla dalle degli dei del
        della delle dello di dove e è ed era erano gli ha hanno ho i il in io l la le lei li lo loro lui ma mi mia mio
        ne nel nella nelle noi nostra nostro o per perché più può qual quale quali quando quanta quante quanti quanto
        questa queste questi questo se si sia sono su sua sue sugli sui sul sulla sulle suo suoi ti tra tu tua tuo un
        una uno vi voi
    """,
    "portuguese": """
        a à ao aos as às até com como da das de dela dele do dos e é ela elas ele eles em entre era essa esse esta está
        este eu foi foram há isso isto já lhe lo mais mas me meu meus minha muito na nas no nos nós o onde os ou para
        pela pelas pelo pelos pode por porque qual quais quando quanta quantas quanto quantos que quem são se sem ser
        seu seus sua suas também te tem têm teu um uma umas uns você vocês
    """,
    "dutch": """
        aan al alle als bij daar dan dat de der deze die dit door dus een en er ge haar had heb hebben heeft hem het
        hier hij hoe hoeveel hun ik in is je jij jouw kan kon kunnen maar me met mij mijn moet moeten na naar nog nu of
        om omdat ons onze ook op over te tegen toch toen tot u uit uw van veel voor waar waarom wanneer waren was wat
        we welk welke werd wie wij wil worden wordt zal ze zich zij zijn zo zou
    """,
}
STOP_WORDS_OF: Mapping[str, frozenset[str]] = {
    ENGLISH: STOP_WORDS,
    **{language: frozenset(common.split()) for language, common in _COMMON.items()},
}
"""Words so common in a language that they tell nothing about what a text is about, by the language's Snowball name."""

_LANGUAGES = tuple(STOP_WORDS_OF)
_SPEAKERS: Mapping[str, tuple[int, ...]] = {
    word: tuple(at for at, language in enumerate(_LANGUAGES) if word in STOP_WORDS_OF[language])
    for word in frozenset().union(*STOP_WORDS_OF.values())
}
"""The languages a common word may be of, by their places."""

_UNSPACED = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\U00020000-\U0003134f]+"
)
"""Stretches of Thai, Lao, Burmese, Khmer, Japanese and Chinese."""

_COMMON_IN_PAIRS = """
    什么 么时 时候 多少 哪个 哪里 哪些 哪天 哪儿 怎么 为什 几个 几点 多久 多大 是谁 请问 可以 这个 那个 我们 他们
    です ます すか ませ まし した して いる ある から まで さい ださ くだ 何で 何時 いつ どこ つで こで 誰で はい うか
    くら らで なぜ どの どう して のは には では とは
"""
_COMMON_PAIRS = frozenset(_COMMON_IN_PAIRS.split())
"""Pairs of characters so common in Chinese and Japanese that they tell nothing about what a text is about."""


def terms(text: str) -> list[str]:
    """Return the terms of a text, in order, repeated as they are."""
    spoken = _spoken(text)
    language = _language_of(spoken)
    common = STOP_WORDS_OF[language]
    found = [stem(word, language) for word in spoken if word not in common]
    return found if text.isascii() else found + _pairs(text)


def named(text: str) -> list[str]:
    """Return the terms of what a text calls by name: words with digits, and those with a capital, but for the first.

    German writes every noun so: there only words with digits are names.
    """
    spoken = _spoken(text)
    language = _language_of(spoken)
    common = STOP_WORDS_OF[language]
    if language == "german":
        return [stem(word, language) for word in spoken if any(map(str.isdigit, word))]
    found = [bare(word) for word in capitalised(text) if not _UNSPACED.match(word)]
    return [stem(word, language) for word in found if word not in common]


def _spoken(text: str) -> list[str]:
    """Return the words of a text that are written with spaces between them, without what is elided."""
    found = words(text)
    if text.isascii():
        return [bare(word) for word in found] if "'" in text else found
    return [bare(word) for word in found if word.isascii() or not _UNSPACED.match(word)]


def _pairs(text: str) -> list[str]:
    """Return every two characters that stand together where words have no spaces between them."""
    found: list[str] = []
    for stretch in _UNSPACED.findall(normal(text)):
        found += [stretch[at : at + 2] for at in range(max(1, len(stretch) - 1))]
    return [pair for pair in found if pair not in _COMMON_PAIRS]


def _language_of(spoken: list[str]) -> str:
    counts = [0] * len(_LANGUAGES)
    for word in spoken:
        for at in _SPEAKERS.get(word, ()):
            counts[at] += 1
    return _LANGUAGES[counts.index(max(counts))]
