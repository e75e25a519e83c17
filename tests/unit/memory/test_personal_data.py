"""Sensitive text: secrets are found however they are written, personal data where it stands; prose holds neither."""

from __future__ import annotations

import base64
import json
import random
import re
import time

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from airside.memory.privacy import personal_data, secrets
from airside.memory.privacy.personal_data import PersonalDataSpan, find_personal_data, find_secret, redacted

# Put together from parts, so that no scanner of repositories takes them for keys that somebody lost.
AWS = "AKIA" + "IOSFODNN7EXAMPLE"
AWS_SECRET = "wJalrXUtnFEMI/K7MDENG/" + "bPxRfiCYEXAMPLEKEY"
GITHUB = "ghp_" + "a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8"
GITHUB_FINE = "github_pat_" + "11AAAAAAA0abcdefghijkl_1234567890abcdefghijklmnopqrstuvwxyz"
GITLAB = "glpat-" + "Zx9Qw8Er7Ty6Ui5Op4As"
SLACK = "xoxb-" + "123456789012-123456789012-abcdefABCDEF123456"
STRIPE = "sk_live_" + "4eC39HqLyjWDarjtT1zdp7dc"
OPENAI = "sk-proj-" + "abcDEF123456ghiJKL789012mnoPQR345678stu"
OPENAI_OLD = "sk-" + "Ab1Cd2Ef3Gh4Ij5Kl6Mn" + "T3BlbkFJ" + "Ab1Cd2Ef3Gh4Ij5Kl6Mn"
ANTHROPIC = "sk-ant-" + "api03-abcDEF123456ghiJKL789012mnoPQR345678stu-AA"
GOOGLE = "AIza" + "SyA1234567890abcdefghijklmnopqrstuv"
SENDGRID = "SG." + "ngeVfQFYQlKU0ufo8x5d1A" + "." + "TwL2iGABf9DHoTf-09kqeF8tAmbihYzrnopKc-1s5cr"
TWILIO = "SK" + "0123456789abcdef0123456789abcdef"
TELEGRAM = "110201543:" + "AAHdqTcvCH1vGWJxfSeofSAs0K5PALDsaw_"
NPM = "npm_" + "a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8"
PYPI = "pypi-" + "AgEIcHlwaS5vcmc" + "CJDYwYjE4" * 10
HUGGING = "hf_" + "AbCdEfGhIjKlMnOpQrStUvWxYz12345678"
SHOPIFY = "shpat_" + "0123456789abcdef0123456789abcdef"
VAULT = "hvs." + "CAESIJ1234567890abcdefghijklmnop"
JWT = (
    "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9."
    + "eyJzdWIiOiIxMjM0NTY3ODkwIn0."
    + "dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U"
)
PEM = "\n".join(("-----BEGIN RSA PRIVATE KEY-----", "MIIEowIBAAKCAQEA1c7+9z5Pad7Oej", "-----END RSA PRIVATE KEY-----"))
RANDOM = base64.b64encode(random.Random(7).randbytes(32)).decode()
WIDE = {ord(" ") + n: 0xFF00 + n for n in range(1, 95)}

KEYS = {
    "aws_access_key": AWS, "github_token": GITHUB, "gitlab_token": GITLAB, "slack_token": SLACK, "stripe_key": STRIPE,
    "openai_key": OPENAI, "anthropic_key": ANTHROPIC, "google_key": GOOGLE, "sendgrid_key": SENDGRID, "npm_token": NPM,
    "telegram_token": TELEGRAM, "pypi_token": PYPI, "twilio_key": TWILIO, "jwt": JWT, "token": HUGGING,
    "private_key": PEM, "high_entropy": RANDOM,
}  # fmt: skip
"""One of each form, by the kind it is found as."""

SECRETS = [
    *((key, kind) for kind, key in KEYS.items()),
    (GITHUB_FINE, "github_token"),
    (OPENAI_OLD, "openai_key"),
    (SHOPIFY, "token"),
    (VAULT, "token"),
    (f"use {AWS} for the bucket", "aws_access_key"),
    (f"aws_secret_access_key = '{AWS_SECRET}'", "aws_access_key"),
    (f"Our AWS secret key is {AWS_SECRET}", "password"),
    (f"Authorization: Bearer {JWT}", "jwt"),
    ("curl -H 'Authorization: Bearer 9f8A7b6C5d4E3f2A1b0C'", "token"),
    ("Authorization: Basic QWxhZGRpbjpPcGVuU2VzYW1lMQ==", "token"),
    (f"-----BEGIN OPENSSH PRIVATE KEY-----\n{RANDOM}", "private_key"),
    ("-----BEGIN ENCRYPTED PRIVATE KEY-----", "private_key"),
    ("-----BEGIN PGP PRIVATE KEY BLOCK-----", "private_key"),
    ("PuTTY-User-Key-File-3: ssh-ed25519", "private_key"),
    (json.dumps({"type": "service_account", "private_key": PEM}), "private_key"),
    (json.dumps({"user": "bob", "password": "hunter2!x"}), "password"),
    (json.dumps({"inner": json.dumps({"api_key": "9f8a7b6c5d4e"})}), "password"),
    ("the password for the wifi is hunter2!x", "password"),
    ("The password for the guest network on the second floor is hunter2.", "password"),
    ("Her password is Tr0ub4dor&3.", "password"),
    ("password: hunter2", "password"),
    ("Password = Summer2024!", "password"),
    *(
        (f"The password is {word}.", "password")
        for word in ("p4ssw0rd", "s3cret99", "pass3word", "99problems", "myaa!10", "$ecret99")
    ),
    ("password=letmein99", "password"),
    ("please use Hunter2x! as the wifi password", "password"),
    ("user bob, pass hunter2x", "password"),
    ("pw = 'Tr0ub4dor'", "password"),
    ("her password is qXvBtRmZkW", "password"),
    ("secret=a1b2!c3d4#e5", "token"),
    ("set the password to correct-horse-7", "password"),
    ("log in with password hunter2!x please", "password"),
    ("the passwords are hunter2 and hunter3", "password"),
    ('the admin password: "swordfish"', "password"),
    ("DB_PASSWORD='swordfish'", "password"),
    ("pwd=hunter2;server=db1", "password"),
    ("Server=db;Database=x;User Id=sa;Password=Pa55w0rd;", "password"),
    ("the password is 12345678", "password"),
    ("Her password is hunter!x and she knows", "password"),
    ("Das Passwort lautet Sommer2024", "password"),
    ("Das Kennwort ist geheim99", "password"),
    ("la contrase\u00f1a es verano2024", "password"),
    ("le mot de passe est soleil2024", "password"),
    ("\u043f\u0430\u0440\u043e\u043b\u044c: leto2024", "password"),
    ("passphrase: correct horse battery staple", "password"),
    ('the passphrase is "open the pod bay doors"', "password"),
    ("seed phrase: abandon ability able about above absent absorb abstract absurd abuse access accident", "password"),
    ("the API key is 9f8a7b6c5d4e3f2a", "password"),
    ("api_key=abc123def456", "password"),
    ("client secret: 8f7d6e5c4b3a", "password"),
    ("The wifi key is blue-Tiger-42", "password"),
    ("wifi password\n\nhunter2x9", "password"),
    ("my card PIN is 4821", "pin"),
    ("PIN: 0042", "pin"),
    ("the CVV is 123", "pin"),
    ("the alarm code for the office is 7431#", "pin"),
    ("recovery codes: ABCD-1234-EF56", "pin"),
    ("your verification code is 482913", "pin"),
    ("the token is 8f3k2j9d7s6a", "token"),
    ("postgres://bob:s3cr!t@db.corp.example/x", "login"),
    ("mysql://root:swordfish@localhost", "login"),
    ("redis://:p4ss@cache:6379", "login"),
    ("https://bob:hunter2@corp.example/feed", "login"),
    ("DefaultEndpointsProtocol=https;AccountName=x;AccountKey=" + "Ab1+" * 21 + "Ab==", "azure_key"),
    ("https://x.blob.example/c?sv=2020&sig=Ab1%2BCd2Ef3Gh4Ij5Kl6Mn7Op8", "token"),
    (f"keep {RANDOM} safe", "high_entropy"),
    ("it is 9f86d081884c7d659a2feaa0c55ad015", "high_entropy"),
    # Disguised.
    (AWS[:9] + "\n" + AWS[9:], "aws_access_key"),
    (f"{GITHUB[:20]}\n    {GITHUB[20:]}", "github_token"),
    (" ".join(STRIPE[n : n + 8] for n in range(0, len(STRIPE), 8)), "stripe_key"),
    ("\u200b".join(AWS), "aws_access_key"),
    (AWS.translate(WIDE), "aws_access_key"),
    (f"use {GITHUB.translate(WIDE)} now", "github_token"),
    (AWS.replace("A", "\u0410").replace("K", "\u041a"), "aws_access_key"),
    ("the p\u200dass\u00adword is hunter2!x", "password"),
    ("the \uff50\uff41\uff53\uff53\uff57\uff4f\uff52\uff44 is hunter2!x", "password"),
    ("the p\u0430ssw\u043erd is hunter2!x", "password"),
    ("the pa\u0301ssword is \u201chunter2!x\u201d", "password"),
    ("pass\x00word: hunter2!x", "password"),
    ("PIN is \u0664\u0668\u0662\u0661", "pin"),
]

PROSE = [
    "The customer wants her invoices by mail, on the 3rd of each month, and pays within 14 days.",
    "The password is required, and the password must have 8 characters, one of them a digit.",
    "She forgot her password and asked for a reset; the password was changed in 2024.",
    "Passwords expire after 90 days. The password is stored as a bcrypt hash. Use sha256 for the key.",
    "The secret of good bread is time. The token is expired, the key is under the mat.",
    "password: str, the user's password. api_key: your key. token = get_token(run_id)",
    "password=<password>, api_key=${API_KEY}, secret: ********, token: xxxxxxxx",
    "password = os.environ['DB_PASSWORD']; key = config.secrets.api_key",
    "Run run_0123456789abcdef01234567 ended; run_0123456789abcdef01234567.3-1 was its branch.",
    "id 550e8400-e29b-41d4-a716-446655440000 was paid, order 4711-2024-000123, invoice INV-2024-0012.",
    "sha256 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08 of the file",
    "The digest is sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08.",
    "commit 72d110fd41c1a52e6d5e2f6cbb1f9d2c9a70b4e1 fixes it",
    "See https://docs.example/a/b/c?id=12345678&lang=en#Section-12 and https://drive.example/d/1A2b3C4d5E6f7G8h9I0jKlMnOpQ",
    "Flight LH1234 at 14:05, seat 12A, booking reference X7Y8Z9, gate B12; the gate is 22.",
    "stack/provenance.py and tests/test_provenance_rules.py use MaxFindingsPerContentArgument2 and to_base64_string",
    "GB82 WEST 1234 5698 7654 32 is her account, and she is born on 1 May 1980.",
    "postgres://user:password@host/db is the form; postgresql://${USER}:${PASS}@host too; http://localhost:8080/a@b",
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ0123456789abcdefghijABCDEFGHIJ bob@host is the public half",
    "The pin is 5 mm long, PIN entry is disabled, and the security code is on the back.",
    "LIFE IN SLOVAKIA IS A JOY, AND 12 OF 20 PEOPLE THERE SAY SO IN CAPITALS",
    "Basic understanding of 2 languages is expected; bearer of good news, token of gratitude.",
    "The api key is rotated monthly, and the client secret is kept in the vault.",
    "Log in at 9 am with the key: blue for staff, red for guests. Key: value pairs are fine.",
    "The key: `~urllib3.fields.RequestField2`; https://user:password@host.com:80/path2?query is the form.",
    "password policy v2 is in passwords.txt, and password managers like 1Password help.",
]


@pytest.mark.parametrize(("text", "kind"), SECRETS)
def test_a_secret_is_found_with_its_kind(text: str, kind: str) -> None:
    assert find_secret(text) == kind


@pytest.mark.parametrize("text", PROSE)
def test_prose_ids_digests_and_links_hold_no_secret(text: str) -> None:
    assert find_secret(text) is None


# Personal data.

PERSONAL = [
    ("mail alice@corp.com today", "email", "alice@corp.com"),
    ("<o'neil+news@mail.corp.co.uk>", "email", "o'neil+news@mail.corp.co.uk"),
    ("see https://x.example/?to=bob@corp.com", "email", "bob@corp.com"),
    ("'bob@corp.com'", "email", "bob@corp.com"),
    ("bob\uff20corp.com wrote", "email", "bob\uff20corp.com"),
    ("a\u200blice@co\u200brp.com.", "email", "a\u200blice@co\u200brp.com"),
    ("write to alice (at) corp (dot) com", "email", "alice (at) corp (dot) com"),
    ("call +49 30 901820 now", "phone", "+49 30 901820"),
    ("+44 20 7946 0958 or +1 415 555 2671", "phone", "+1 415 555 2671"),
    ("call +33 1 42 68 53 00.", "phone", "+33 1 42 68 53 00"),
    ("(415) 555-2671 is hers", "phone", "(415) 555-2671"),
    ("415-555-2671 is hers", "phone", "415-555-2671"),
    ("her mobile is 07700 900123", "phone", "07700 900123"),
    ("Telefon: 030 901820", "phone", "030 901820"),
    ("tel +\uff14\uff19 30 901820", "phone", "+\uff14\uff19 30 901820"),
    ("IBAN GB82 WEST 1234 5698 7654 32 is hers", "iban", "GB82 WEST 1234 5698 7654 32"),
    ("DE89370400440532013000", "iban", "DE89370400440532013000"),
    ("gb82west12345698765432", "iban", "gb82west12345698765432"),
    ("card 4111 1111 1111 1111 exp 12/27", "card", "4111 1111 1111 1111"),
    ("5500-0055-5555-5559", "card", "5500-0055-5555-5559"),
    ("amex 3782 822463 10005", "card", "3782 822463 10005"),
    ("her SSN is 536-90-4399", "national_id", "536-90-4399"),
    ("NHS number 943 476 5919", "national_id", "943 476 5919"),
    ("DNI 54362315K", "national_id", "54362315K"),
    ("codice fiscale RCCMNL83S18D969H", "national_id", "RCCMNL83S18D969H"),
    ("AHV 756.9217.0769.85", "national_id", "756.9217.0769.85"),
    ("CPF 390.533.447-05", "national_id", "390.533.447-05"),
    ("PESEL 44051401359", "national_id", "44051401359"),
    ("from 203.0.113.7 at noon", "ip", "203.0.113.7"),
    ("from 2001:db8::8a2e:370:7334 at noon", "ip", "2001:db8::8a2e:370:7334"),
    ("lives at 12 Elm Court, Springfield", "address", "12 Elm Court, Springfield"),
    ("ship to 350 Fifth Avenue, New York, NY 10118", "address", "350 Fifth Avenue, New York, NY 10118"),
    ("221B Baker Street, London", "address", "221B Baker Street, London"),
    ("wohnt Hauptstra\u00dfe 5, 10115 Berlin", "address", "Hauptstra\u00dfe 5, 10115 Berlin"),
    ("12 rue de la Paix, 75002 Paris", "address", "12 rue de la Paix, 75002 Paris"),
    ("PO Box 1234", "address", "PO Box 1234"),
    ("born on 1980-05-01 in Rome", "birth_date", "1980-05-01"),
    ("date of birth: 01.05.1980", "birth_date", "01.05.1980"),
    ("DOB 5/1/1980", "birth_date", "5/1/1980"),
    ("her birthday is May 1st", "birth_date", "May 1st"),
    ("geboren am 1. M\u00e4rz 1980", "birth_date", "1. M\u00e4rz 1980"),
]

IMPERSONAL = [
    *(text for text in PROSE if "GB82" not in text and "@host.com" not in text),
    "Order 4711-2024-000123 of 2024-05-01 10:30, 1,200,000.00 USD, 12.50 each, ticket 1234567890.",
    "Version 1.2.3.4 on 127.0.0.1 and 0.0.0.0; std::vector, x[::2], a::b, 12:30:45; sha1 and C++17.",
    "The reference is 4111 1111 1111 1112, and the invoice number is 20240501123456.",
    "call me at 9, text 100 people on 5 May; she was born in Rome and came on 2024-05-01.",
    "5 Street musicians, 12 Angry Men, 3 Way calls; 500 people walked down Wall Street.",
    "decorators like @app.get and @pytest.mark, foo@1.2.3, git@v2; a @ b; user@localhost",
    "networks 10.0.0.0/8 and fe80::/10, Decimal('+35236450.6'), `@airside.tool` and *@pytest.mark*",
    "timestamps 1714552200, 1714552200000 and 1714552200000000; ids 100000001 and 5361234567.",
]


def values(text: str) -> list[tuple[str, str]]:
    """Return what is found, with its kind."""
    return [(found.kind, text[found.start : found.end]) for found in find_personal_data(text)]


@pytest.mark.parametrize(("text", "kind", "value"), PERSONAL)
def test_personal_data_is_found_where_it_stands(text: str, kind: str, value: str) -> None:
    assert (kind, value) in values(text)


@pytest.mark.parametrize("text", IMPERSONAL)
def test_numbers_dates_programs_and_prose_are_not_personal(text: str) -> None:
    assert values(text) == []


def test_each_finding_is_replaced_by_its_kind() -> None:
    text = "Ask alice@corp.com or +49 30 901820 (card 4111 1111 1111 1111)."
    assert redacted(text, find_personal_data(text)) == "Ask [email] or [phone] (card [card])."
    assert redacted(text, ()) == text


def test_a_value_found_once_is_found_wherever_it_stands() -> None:
    """What only a word makes certain at one place is the same thing where that word is not."""
    text = "Her SSN is 536-90-4399. For 536-90-4399 a form is due; 1536-90-43990 is another."
    assert redacted(text, find_personal_data(text)) == (
        "Her SSN is [national_id]. For [national_id] a form is due; 1536-90-43990 is another."
    )


def test_names_are_not_detected() -> None:
    assert find_personal_data("Alice Miller of Springfield met Bob.") == ()


# What is not looked at closely.

KEY_FORMS = [*secrets._FORMS, *secrets._LOOSE, ("login", secrets._LOGIN), *secrets._kept_forms()]


@pytest.mark.parametrize("form", [form for _, form in KEY_FORMS], ids=[kind for kind, _ in KEY_FORMS])
@given(data=st.data())
@settings(max_examples=20, suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow])
def test_a_text_with_the_form_of_a_key_is_looked_at_closely(form: re.Pattern[str], data: st.DataObject) -> None:
    text = data.draw(st.from_regex(form))
    assert secrets._LONG_RUN.search(text) or secrets._SHORT_FORM.search(text)


@given(st.from_regex(secrets._KEY))
@settings(suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow])
def test_a_text_that_names_a_secret_is_looked_at_closely(text: str) -> None:
    assert secrets._may_name_secret(text)


LEAST = {kind: least for kind, least, _ in personal_data._SEARCHES}
NUMBERED = [
    *(("national_id", form) for _, form, _ in personal_data._IDS),
    *(("iban", personal_data._IBAN.pattern), ("card", personal_data._CARD.pattern)),
    *(("phone", personal_data._PARTS.pattern), ("birth_date", personal_data._DAY.pattern)),
    *(("address", form.pattern) for form in (*personal_data._POSTAL, personal_data._AT_HOME)),
]


@pytest.mark.parametrize(("kind", "form"), NUMBERED)
@given(data=st.data())
@settings(max_examples=10, suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow])
def test_whatever_has_the_form_of_personal_data_has_its_least_number_of_digits(
    kind: str, form: str, data: st.DataObject
) -> None:
    assert len(personal_data._DIGIT.findall(data.draw(st.from_regex(form)))) >= LEAST[kind]


# Whatever the text.

WORDS = [
    "the", "a", "of", "and", "to", "in", "is", "was", "for", "on", "with", "as", "at", "by", "from", "or", "an",
    "be", "this", "that", "which", "have", "it", "not", "are", "but", "had", "his", "her", "they", "one", "you",
    "were", "all", "we", "there", "can", "their", "has", "more", "if", "will", "about", "out", "up", "them", "then",
    "some", "so", "customer", "invoice", "order", "week", "report", "meeting", "room", "price", "travel", "note",
    "policy", "agent", "password", "key", "token", "secret", "card", "phone", "account", "mail", "address",
]  # fmt: skip
SENTENCES = st.lists(st.sampled_from(WORDS), max_size=40).map(" ".join)
HARD = st.text(
    st.sampled_from("abcXYZ0123456789 .,:;@+-()/=_\"'\n\u200b\u00e9\uff20\u0661\ufdfa\u0430#[]<>"), max_size=120
)
ANY = st.one_of(
    st.text(max_size=120), HARD, st.lists(st.sampled_from([t for t, *_ in PERSONAL]), max_size=4).map(" ".join)
)


@given(ANY)
def test_spans_lie_within_the_text_in_order_and_apart(text: str) -> None:
    found, at = find_personal_data(text), 0
    for each in found:
        assert at <= each.start < each.end <= len(text)
        at = each.end


@given(SENTENCES, st.lists(st.sampled_from(PERSONAL), min_size=1, max_size=3), SENTENCES)
@settings(max_examples=60)
def test_nothing_that_was_found_is_left_when_it_is_redacted(
    before: str, planted: list[tuple[str, str, str]], after: str
) -> None:
    text = "\n".join((before, *(each for each, _, _ in planted), after))
    left = redacted(text, find_personal_data(text))
    for _, kind, value in planted:
        assert value not in left and f"[{kind}]" in left
    assert find_personal_data(left) == ()


@given(SENTENCES)
def test_common_words_are_neither_secret_nor_personal(text: str) -> None:
    """Words that name secrets are among them: it takes more than a name."""
    assert find_secret(text) is None and find_personal_data(text) == ()


@given(SENTENCES, st.sampled_from(sorted(KEYS)), SENTENCES, st.sampled_from(["", "\u200b", "wide"]))
@settings(max_examples=150)
def test_a_planted_key_is_found_in_any_prose(before: str, kind: str, after: str, disguise: str) -> None:
    key = KEYS[kind]
    hidden = key.translate(WIDE) if disguise == "wide" else disguise.join(key)
    assert find_secret(f"{before} {hidden} {after}") is not None
    assert find_secret(f"{before}\n{json.dumps({'value': hidden})}\n{after}") is not None


@given(SENTENCES, st.text("abcdefghijkmnopqrstuvwxyz", min_size=4, max_size=8), st.integers(10, 99_999), SENTENCES)
@settings(max_examples=60)
def test_a_planted_password_is_found_in_any_prose(before: str, word: str, number: int, after: str) -> None:
    assume(word not in ("pass", "passwd", "password", "secret", "token"))  # these say what is meant, and are none
    assert find_secret(f"{before}. The password is {word}!{number} {after}") is not None


@given(ANY)
def test_any_text_is_read_without_an_error(text: str) -> None:
    kind = find_secret(text)
    assert kind is None or kind.isascii()
    assert redacted(text, find_personal_data(text)).isprintable() or not text.isprintable()


HOSTILE = [
    "AKIA", "eyJ", "eyJaaaaaaaaaaa.", "//", "://a:", "password", "pwd:", "password to be ", "secret_key[", "sk-a-",
    "xoxb-1-", 'aws key "', "pin: 1", "basic a1", "1", "12345678:", "aB1cD2eF3", "9f86d081884c7d659a2feaa0c55ad015\n",
    "\ufdfa", "seed phrase: abc abd abe abf ", "id aB1cD2eF3aB1cD2eF3aB1cD2eF3 ", "a@b.", "a@b.c ",
    "4111 1111 ", "call 030 901820 ", "+49 30 901820 ", "(415) 555-2671 ", "born 1.1.1 ", "ssn 536-90-4398 ", 
    "12 Aa Bb ",
    "a at b dot ", "a (at) b (dot) ", "GB82 WEST 1234 5698 7654 33 ", "::", "1.2.3.4 ", "lives at 1 A ", "Calle A ",
    "756.", "@", "-", "(+",
    "ab12" + "a" * 48 + "_", "\\u0061",
]  # fmt: skip


@pytest.mark.parametrize("piece", HOSTILE)
def test_no_text_of_eight_thousand_characters_is_read_for_long(piece: str) -> None:
    """The bound is ten times what this takes on a quiet machine: it tells a slow pattern from a slow machine."""
    text = (piece * 8_000)[:8_000]
    begin = time.process_time()
    find_secret(text)
    assert time.process_time() - begin < 0.3
    begin = time.process_time()
    find_personal_data(text)
    assert time.process_time() - begin < 2


def test_what_is_found_says_nothing_of_it() -> None:
    assert repr(find_personal_data("ask alice@corp.com")) == "(PersonalDataSpan(kind='email', start=4, end=18),)"
    assert PersonalDataSpan("ip", 0, 1).kind == "ip"
