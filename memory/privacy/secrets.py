"""Whether a text holds a secret: a key of a known form, a password that is said to be one, or what looks random.

Keys of known forms are found by the plugins of `detect-secrets` and by `_FORMS`.  Three of its plugins are left out:
its keyword detector (80 ms for 512 hostile characters, and quotation marks required), its OpenAI and its npm one (both
quadratic); `_said` and `_FORMS` have their part.  The plugins see windows of bounded length, so that time grows with
the length of the text alone; none of them is asked to verify anything, which would need the network.

No secret is found in words alone: `the password is swordfish` is, to a program, like `the password is wrong`, unless
the word is in quotation marks.  What looks random and is named as something else (a digest, a commit, an id) is none.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING

from airside.memory.privacy.confusables import fold_confusables

if TYPE_CHECKING:
    from detect_secrets.plugins.base import RegexBasedDetector
    from detect_secrets.plugins.high_entropy_strings import HighEntropyStringsPlugin

_WINDOW, _STRIDE = 512, 256
"""Characters a plugin sees at a time, and from one window to the next: a key of a known form has fewer than 256."""


def find_secret(text: str) -> str | None:
    """Return the kind of secret a text holds (`aws_access_key`, `password`, ...), or None; never the secret itself."""
    plain = fold_confusables(_ESCAPED.sub(_unescaped, text) if "\\" in text else text)
    has_run = _LONG_RUN.search(plain) is not None
    kind = _formed(plain) if has_run or _SHORT_FORM.search(plain) is not None else None
    kind = kind or _wrapped(plain)
    if kind is None and _may_name_secret(plain):
        kind = _said(plain)
    return kind or (_random(plain) if has_run else None)


_LONG_RUN = re.compile(r"\S{15}")
"""What every key of a known form has but those of `_SHORT_FORM`, and what looks random: most texts need no closer look.
"""

_SHORT_FORM = re.compile(r":(?=//)|P(?=RIVATE KEY)|x(?=[oO][xX])|X(?=[oO][xX])")


_ESCAPED = re.compile(r"\\++(?:u([0-9a-fA-F]{4})|([nrt\"/]))")
"""What JSON makes of characters, also where JSON stands in JSON."""


def _unescaped(match: re.Match[str]) -> str:
    return chr(int(match[1], 16)) if match[1] else {"n": "\n", "r": "", "t": "\t"}.get(match[2], match[2])


# Keys of known forms.

_FORMS = (
    (
        "private_key",
        re.compile(
            r"BEGIN [A-Z0-9 ]{0,24}PRIVATE KEY|PuTTY-User-Key-File-\d|b3BlbnNzaC1rZXktdj|AGE-SECRET-KEY-1[0-9A-Z]{20}"
        ),
    ),
    ("google_key", re.compile(r"AIza[\w\-]{35}|GOCSPX-[\w\-]{20}|ya29\.[\w\-]{20}")),
    (
        "openai_key",
        re.compile(r"(?<![\w\-])sk-(?:proj|svcacct|admin|None)-[\w\-]{20}|[A-Za-z0-9]{20}T3BlbkFJ[A-Za-z0-9]"),
    ),
    ("anthropic_key", re.compile(r"sk-ant-[a-z]{2,8}\d\d-[\w\-]{20}")),
    ("github_token", re.compile(r"github_pat_[A-Za-z0-9_]{22}")),
    ("slack_token", re.compile(r"xox[a-z](?:\.xox[a-z])?-[0-9]+-[A-Za-z0-9\-]{8}|xapp-\d-[A-Za-z0-9]{5,20}-\d{5}")),
    ("stripe_key", re.compile(r"(?:sk|rk)_(?:test|live)_[A-Za-z0-9]{16}|whsec_[A-Za-z0-9+/]{24}")),
    ("npm_token", re.compile(r"(?<![A-Za-z0-9])npm_[A-Za-z0-9]{36}")),
    (
        "token",
        re.compile(
            r"(?<![A-Za-z0-9])(?:hf_[A-Za-z0-9]{30}|hv[sbr]\.[\w\-]{20}|shp(?:at|ca|pa|ss)_[a-f0-9]{32}|do[opr]_v1_[a-f0-9]{64}"
            r"|dapi[a-f0-9]{32}|dckr_pat_[\w\-]{20}|gl(?:sa|c)_[A-Za-z0-9+/=_]{30}|lin_api_[A-Za-z0-9]{30}"
            r"|ntn_[A-Za-z0-9]{30}|PMAK-[a-f0-9]{24}|r8_[A-Za-z0-9]{30}|sntry[su]_[A-Za-z0-9+/=_]{30}"
            r"|pscale_(?:tkn|pw)_[\w\-]{30}|dp\.(?:pt|st|ct)\.[A-Za-z0-9]{30}|pat[A-Za-z0-9]{14}\.[a-f0-9]{64}|sk\.eyJ[\w\-]{20})"
        ),
    ),
)
_FORM_PARTS = (
    "PRIVATE KEY", "PuTTY-User-Key-File-", "b3BlbnNzaC1rZXktdj", "AGE-SECRET-KEY-1", "AIza", "GOCSPX-", "ya29.", "sk-",
    "T3BlbkFJ", "github_pat_", "xox", "xapp-", "sk_", "rk_", "whsec_", "npm_", "hf_", "hv", "shp", "_v1_", "dapi",
    "dckr_pat_", "gls", "glc_", "lin_api_", "ntn_", "PMAK-", "r8_", "sntry", "pscale_", "dp.", "pat", "sk.eyJ",
)  # fmt: skip
"""One of these is in whatever one of `_FORMS` matches."""

_ASCII_DIGIT = re.compile(r"[0-9]")

_LOOSE = (
    ("openai_key", re.compile(r"(?<![\w\-])sk-(?=[A-Za-z]*\d)(?=[a-z0-9]*[A-Z])[A-Za-z0-9]{20,64}")),
    (
        "token",
        re.compile(
            r"\b(?:bearer|basic|token)\s{1,4}(?=[A-Za-z+/._~\-]{0,40}\d)(?=[a-z0-9+/._~\-]{0,40}[A-Z])[A-Za-z0-9+/._~\-]{16}"
            r"|[?&](?:sig|x-amz-signature)=[A-Za-z0-9%+/]{20}",
            re.IGNORECASE,
        ),
    ),
)
"""Forms that prose can have where blanks are left out, so that they are not looked for there."""

_JWT = re.compile(r"eyJ[\w\-]{10,400}+(?=\.[\w\-=]{4})")
_LOGIN = re.compile(r"://[^\s:/?#@\"'<>]{0,64}:([^\s/@\"'<>]{2,128})@")
_NO_LOGIN = re.compile(
    r"(?i:x+|\*+|\.+|pass(?:word|wd)?|pwd|pw|secret|token|your.*|my.?pass(?:word)?|p)|[{<\[(].*|[$%][{(<].*|[$%][A-Z_]+%?|port",
    re.DOTALL,
)
"""What documentation has in the place of a password."""


def _windows(text: str) -> Iterator[str]:
    for begin in range(0, max(1, len(text) - _STRIDE), _STRIDE):
        yield text[begin : begin + _WINDOW]


def _formed(text: str) -> str | None:
    if any(_is_jwt(match.group()) for match in _JWT.finditer(text)):
        return "jwt"
    for kind, form in (*_FORMS, *_LOOSE):
        if form.search(text):
            return kind
    if "://" in text and any(not _NO_LOGIN.fullmatch(match[1]) for match in _LOGIN.finditer(text)):
        return "login"
    for window in _windows(text):
        for kind, form in _kept_forms():
            if form.search(window):
                return kind
    return None


def _wrapped(text: str) -> str | None:
    """Look for keys that a mailer or a person has broken with blanks or line breaks."""
    joined = "".join(text.split())
    if len(joined) == len(text) or not _has_digit(joined):
        return None
    if any(map(joined.__contains__, _FORM_PARTS)):
        for kind, form in _FORMS:
            if any(_has_digit(match.group()) for match in form.finditer(joined)):
                return kind
    for window in _windows(joined):
        for kind, form in _kept_forms():
            if kind not in _LOOSE_KEPT and any(_has_digit(match.group()) for match in form.finditer(window)):
                return kind
    return None


def _has_digit(text: str) -> bool:
    """Whether it may be a key: capitals alone are what prose without its blanks can be."""
    return _ASCII_DIGIT.search(text) is not None or (not text.isascii() and any(map(str.isdigit, text)))


def _is_jwt(head: str) -> bool:
    from detect_secrets.plugins.jwt import JwtTokenDetector

    return JwtTokenDetector.is_formally_valid(head)


_LOOSE_KEPT = frozenset({"mailchimp_key", "telegram_token", "twilio_key", "discord_token"})


@cache
def _kept_forms() -> tuple[tuple[str, re.Pattern[str]], ...]:
    from detect_secrets.plugins import (
        aws,
        azure_storage_key,
        discord,
        github_token,
        gitlab_token,
        mailchimp,
        pypi_token,
        sendgrid,
        slack,
        square_oauth,
        stripe,
        telegram_token,
        twilio,
    )

    plugins: dict[str, RegexBasedDetector] = {
        "aws_access_key": aws.AWSKeyDetector(),
        "azure_key": azure_storage_key.AzureStorageKeyDetector(),
        "discord_token": discord.DiscordBotTokenDetector(),
        "github_token": github_token.GitHubTokenDetector(),
        "gitlab_token": gitlab_token.GitLabTokenDetector(),
        "mailchimp_key": mailchimp.MailchimpDetector(),
        "pypi_token": pypi_token.PypiTokenDetector(),
        "sendgrid_key": sendgrid.SendGridDetector(),
        "slack_token": slack.SlackDetector(),
        "square_key": square_oauth.SquareOAuthDetector(),
        "stripe_key": stripe.StripeDetector(),
        "telegram_token": telegram_token.TelegramBotTokenDetector(),
        "twilio_key": twilio.TwilioKeyDetector(),
    }
    return tuple((kind, form) for kind, plugin in plugins.items() for form in plugin.denylist)


# What is said to be a password.

_FOREIGN = "|".join(
    fold_confusables(word)
    for word in (
        "passwort", "kennwort", "contrase\u00f1a", "mot de passe", "senha", "parola", "wachtwoord", "l\u00f6senord",
        "\u043f\u0430\u0440\u043e\u043b\u044c", "\u5bc6\u7801", "\u5bc6\u78bc", "\u30d1\u30b9\u30ef\u30fc\u30c9",
    )
)  # fmt: skip
_KEY = re.compile(
    r"(?P<strong>pass[ _-]?(?:word|code|wd|key)s?|(?<![a-z])pass(?=[:=]| is | \S*\d)|pwd|(?<![a-z])pw(?= ?[:=]| is )"
    rf"|{_FOREIGN}|(?:api|client|shared|app|access|secret|signing|encryption|master|account|storage"
    r"|service|auth|db|database|ssh|wifi|wi-fi|wpa2?|license)[ _-]?(?:secret|key|password))"
    r"|(?P<phrase>(?:pass|seed|recovery|mnemonic|secret)[ _-]?phrase)"
    r"|(?P<weak>(?:access|auth|refresh|bearer|session|security)?[ _-]?token|secret|credentials?|log-?in|(?<![a-z])key)"
    r"|(?P<pin>(?<![a-z])pin(?:[ -]?(?:code|number|no\.?))?(?![a-z])|cv[vc]2?(?![a-z])|(?<![a-z])otp(?![a-z])"
    r"|(?:security|verification|one-time|backup|recovery|2fa|mfa|unlock|door|alarm|gate|access|entry)[ -]?codes?)",
    re.IGNORECASE,
)
_NAMES = (
    "pass", "pw", "kennwort", "contrasena", "senha", "parola", "wachtwoord", "losenord", "secret", "key", "phrase",
    "token", "credential", "login", "log-in", "pin", "cv", "otp", "code",
)  # fmt: skip
"""One of these is in whatever ASCII text `_KEY` matches, which takes fifty times as long."""


def _may_name_secret(text: str) -> bool:
    return any(map(text.lower().__contains__, _NAMES)) or not text.isascii()


_LINK = re.compile(
    r"\s{0,3}(?::(?!//)=?|==?|=>|->)\s{0,3}"
    r"|\s(?:is|was|are|be|to|as|reads|equals|ist|lautet|est|es|e)(?:\s(?:now|still|set to|currently|just|again))?"
    r"[ :]\s{0,2}",
    re.IGNORECASE,
)
_REACH = 70
"""How far behind its name a secret may stand: `the password for the guest network on the second floor is ...`."""

_VALUE = re.compile(r"(?P<quote>[\"'`])(?P<quoted>[^\"'`\n]{3,100})(?P=quote)|(?P<bare>[^\s\"`]{3,64})")
_DIRECT = re.compile(r"[\"')\]]{0,2}\s{1,3}[\"'`]?(?P<bare>[^\s\"'`]{6,64})")
_USED_AS = re.compile(
    r"(?:\A|\s)[\"'`]?(?P<bare>[^\s\"'`]{6,64})[\"'`]?"
    r"\s(?:as|is|was)\s(?:the|my|a|our|your|her|his|their|its)\s(?:\w{1,12}\s)?\Z"
)
_PLACEHOLDER = re.compile(
    r"[<{\[(].*|[$%][{(<].*|\$[a-z_]+|%[sd]|[\"']*|(?:x+|\*+|\.+|#+|-+|_+|\?+)\W*"
    r"|(?:none|null|nil|true|false|undefined|empty|required|optional|unknown|hidden|redacted|removed|secret|password|passwd"
    r"|string|str|bytes|text|value|default|masked|invalid|wrong|correct|incorrect|missing|expired|changed|example"
    r"|(?:your|my|some)[a-z_\- ]*|the|not|an?)\W*",
    re.IGNORECASE | re.DOTALL,
)
_TECHNICAL = re.compile(
    r"(?:[a-z]{1,4}[_-])?(?:hmac)?(?:sha|md|aes|rsa|utf|iso|rfc|base|oauth|pbkdf|bcrypt|argon|ed|pkcs|ipv|http|py|python"
    r"|win|int|uint|float|ec|mp|sqlite|latin|cp|tls|ssl|jwt|es|hs|rs|http/)[_-]?\d{1,6}[\w.\-/]{0,12}"
    r"|[dpsuvx]\d{1,4}(?:[._]\d{1,4})*|\d{1,5}(?:-[a-z]+)+"
    r"|\d+ ?(?:bits?|bytes?|chars?|characters?|px|mins?|hours?|days?)"
    r"|\d+(?:st|nd|rd|th|s|m|h|d|k|x|b|kb|mb)|\d{1,2}:\d\d(?::\d\d)?(?:am|pm)?"
    r"|\d{4}-\d\d-\d\d.*|[\w.\-/]*\.(?:py|txt|json|ya?ml|toml|md|sql|html?|pem|crt|ini|cfg|csv|pdf|env|conf)\b.*"
    r"|https?://.*|[\w.+\-]+@[\w\-]+\.[\w.\-]+|(?:run|apr|inv|ord|order|ticket|req|tx|invoice)[_-].*",
    re.IGNORECASE | re.DOTALL,
)
"""What has letters and digits and is no password: names of algorithms and files, lengths, times, links, ids."""

_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_CODE = re.compile(r"[A-Za-z_][\w]*(?:[.\[(]|\\)[^!@#$^&]*|[\w.]+\(.*|[A-Z0-9_]+")
"""What has the form of a program's expression or constant."""

_UNIT = re.compile(
    r"\s{1,2}(?:bytes?|bits?|char\w*|digits?|letters?|words?|seconds?|minutes?|hours?|days?|times?|years?)\b"
)
_CODE_VALUE = re.compile(
    r"#?\d{3,10}[#*]?|\d{2,4}(?:[ -]\d{2,4}){1,3}|[A-Z0-9]{4,8}(?:-[A-Z0-9]{4,8}){1,5}", re.IGNORECASE
)
_PHRASE = re.compile(r"[\"'`]?(?:[a-z]{3,10}[ -]){3,23}[a-z]{3,10}")
_SMALL = re.compile(
    r"\b(?:the|and|that|this|for|with|from|you|your|are|was|not|must|can|has|have|will|when|which|any|all)\b"
)
_OUTER = "\"'`.,;:!?)]}>"


def _said(text: str) -> str | None:
    keys = list(_KEY.finditer(text))
    for number, key in enumerate(keys):
        # Another name ends the reach of the one before, and with that the time this takes grows with the text alone.
        following = keys[number + 1].start() if number + 1 < len(keys) else len(text)
        end = min(key.end() + _REACH, max(following, key.end()))
        if text[key.end() : key.end() + 1] == "@":
            continue  # user:password@host, as documentation has it
        kind = key.lastgroup
        assert kind is not None
        for link in _LINK.finditer(text, max(key.start(), key.end() - 1), end):
            if _is_said(kind, text, link):
                return "pin" if kind == "pin" else "token" if kind == "weak" else "password"
        direct = _DIRECT.match(text, key.end()) if kind == "strong" else None
        before = _USED_AS.search(text, max(0, key.start() - _REACH), key.start()) if kind == "strong" else None
        values = (direct and direct["bare"], before and before["bare"])
        if any(value and _is_word_with_digits(value.strip(_OUTER)) for value in values):
            return "password"
    return None


def _is_said(kind: str, text: str, link: re.Match[str]) -> bool:
    value = _VALUE.match(text, link.end())
    if value is None:
        return False
    is_quoted = value["quoted"] is not None
    found = value["quoted"] if is_quoted else value["bare"]
    core = found.strip(_OUTER)
    if kind == "phrase":
        phrase = _PHRASE.match(text, link.end())
        return (is_quoted and " " in core) or (phrase is not None and not _SMALL.search(phrase.group()))
    if kind == "pin":
        code = _CODE_VALUE.fullmatch(core) is not None and any(char.isdigit() for char in core)
        return code and not _UNIT.match(text, value.end())
    if kind == "weak":
        fits = _TOKEN.fullmatch(core) is not None and _turns(core) >= _WEAK_TURNS and _is_word_with_digits(core)
    else:
        assigned = link.group().strip() in (":", "=", ":=", "=>", "->", "==")
        fits = _is_password(core, found, is_quoted=is_quoted and assigned) and not _UNIT.match(text, value.end())
    return fits and not (_PLACEHOLDER.fullmatch(core) or _PLACEHOLDER.fullmatch(found) or _TECHNICAL.fullmatch(core))


_JUMBLED = 0.45
"""Turns a letter, from capital to small and back: more than a name made of words has."""

_TOKEN = re.compile(r"(?![~.]?[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+\Z|[~.])[A-Za-z0-9_+/=.~!#%&*@?$^\-]{10,}")
_WEAK_TURNS = 3
"""What follows `token` or `key` is often the name of something, with a number at its end at most."""


def _is_password(core: str, found: str, *, is_quoted: bool) -> bool:
    if core.isdigit():
        return len(core) >= 4
    if any(char.isdigit() for char in core):
        return len(core) >= 4 and any(char.isalpha() for char in core) and not _is_call(core)
    if is_quoted and " " not in core:
        return len(core) >= 5 and _CODE.fullmatch(core) is None
    if core.isalpha() and len(core) >= 8 and _turns(core) >= _JUMBLED * len(core):
        return True
    # "hunter!x": a mark within, which no word and no expression has.
    return len(core) >= 6 and re.search(r"[\w][!@#$^&*+~%]+\w", found) is not None and "://" not in found


def _is_call(core: str) -> bool:
    return re.fullmatch(r"[A-Za-z_][\w.]*[(\[].*", core, re.DOTALL) is not None


def _is_word_with_digits(core: str) -> bool:
    digits = sum(char.isdigit() for char in core)
    letters = sum(char.isalpha() for char in core)
    fits = digits > 0 and _UUID.fullmatch(core) is None and letters > 1 and len(core) >= 6 and "=" not in core[1:-2]
    return fits and not (_TECHNICAL.fullmatch(core) or _PLACEHOLDER.fullmatch(core) or _is_call(core))


# What looks random.

_ADDRESS = re.compile(r"\b[a-z][a-z0-9+.\-]{1,20}://\S*", re.IGNORECASE)
_RUN = re.compile(r"[A-Za-z0-9+/=_\-]{24,}")
_HEX = re.compile(r"[0-9a-fA-F]{32,}")
_PREFIXED = re.compile(r"(?:[a-z]{2,12}[_\-]){1,3}[0-9a-f.\-]+|AAAA[BCE][23]?[A-Za-z0-9]{6}\S*", re.DOTALL)
"""Ids that say what they are (`run_...`), and public halves of ssh keys."""

_NAMED = re.compile(
    r"sha-?\d|\bmd5|digest|hash|checksum|fingerprint|commit|revision|etag|uuid|blake|integrity|\b(?:trace|span|run|request|order"
    r"|invoice|record|document|message)?[ _-]?ids?\b|_id\b|signature|traceparent|public key|etag|nonce",
    re.IGNORECASE,
)
_NAME_REACH = 48
_BASE64_LIMIT, _HEX_LIMIT = 3.8, 3.0
"""Bits a character: those of random text of 24 characters are above, those of compound words below."""

_TURNS = 0.3
"""How often the class of character changes from one to the next: 0.6 in random text, 0.2 in names of programs."""


def _random(text: str) -> str | None:
    rest = _ADDRESS.sub(" ", text)
    for match in _RUN.finditer(rest):
        run = match.group()[:_WINDOW]
        if _PREFIXED.fullmatch(run) or _UUID.search(run) or _is_named(rest, match.start()):
            continue
        pieces = [run] if _HEX.fullmatch(run) else _HEX.findall(run)
        if any(_entropy_of("hex")(piece) > _HEX_LIMIT and not piece.isdigit() for piece in pieces) or _is_mixed(run):
            return "high_entropy"
    return None


def _is_named(text: str, at: int) -> bool:
    return _NAMED.search(text, max(0, at - _NAME_REACH), at) is not None


def _is_mixed(run: str) -> bool:
    classes = _classes(run)
    pieces = re.split(r"[/_+=\-]+", run.strip("=_-/+"))
    return (
        len(classes) >= 20
        and len(set(classes)) == 3
        and classes.count("d") >= 2
        and _turns(run) >= _TURNS * len(classes)
        and len(classes) >= 8 * len(pieces)
        and _entropy_of("base64")(run) > _BASE64_LIMIT
    )


def _classes(run: str) -> str:
    return "".join("d" if char.isdigit() else "u" if char.isupper() else "l" for char in run if char.isalnum())


def _turns(run: str) -> int:
    classes = _classes(run)
    return sum(a != b for a, b in pairwise(classes))


@cache
def _entropy_of(alphabet: str) -> Callable[[str], float]:
    from detect_secrets.plugins import high_entropy_strings as plugins

    plugin: HighEntropyStringsPlugin
    plugin = plugins.HexHighEntropyString() if alphabet == "hex" else plugins.Base64HighEntropyString()
    return plugin.calculate_shannon_entropy
