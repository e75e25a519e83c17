"""Providers: a tenant gets its own secrets and those of all, and no name reaches anybody else's."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airside.stack.errors import InvalidConfig
from airside.stack.ids import TenantId
from airside.tools.secrets.known import MAX_OF_TENANT, KnownSecrets, Secrets
from airside.tools.secrets.providers import (
    EnvironmentSecrets,
    FileSecrets,
    SecretMissing,
    SecretsProvider,
    checked_names,
    checked_provider,
    read_secrets,
    unset,
)
from airside.tools.secrets.redaction import REDACTED

ACME, GLOBEX = TenantId("acme"), TenantId("globex")
MAPPED = EnvironmentSecrets(
    {"acme": {"crm_token": "ACME_CRM"}, "globex": {"crm_token": "GLOBEX_CRM"}}, shared={"mail": "MAIL_PASSWORD"}
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a secret of each tenant, and a shared one."""
    for name in ("acme/crm_token", "globex/crm_token", "common/mail"):
        path = tmp_path / name
        path.parent.mkdir()
        path.write_text(f"the {name} of all\n")
    return tmp_path


def test_the_environment_is_read_by_a_map_and_what_was_read_goes_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ACME_CRM", "GLOBEX_CRM", "MAIL_PASSWORD"):
        monkeypatch.setenv(name, f"value of {name}")
    read: SecretsProvider = pickle.loads(pickle.dumps(MAPPED.read()))
    assert unset(MAPPED) == []
    monkeypatch.delenv("ACME_CRM")
    assert read_secrets(read, ACME, ["crm_token", "mail"]) == {
        "crm_token": "value of ACME_CRM",
        "mail": "value of MAIL_PASSWORD",
    }
    assert read_secrets(MAPPED, GLOBEX, ["crm_token"]) == {"crm_token": "value of GLOBEX_CRM"}
    with pytest.raises(SecretMissing, match=r"acme has no secret 'crm_token': .* ACME_CRM was not set"):
        read_secrets(MAPPED, ACME, ["crm_token"])
    assert len(unset(MAPPED)) == 1 and "value" not in repr(read)


def test_a_file_is_read_at_each_call_without_the_end_of_its_line(folder: Path) -> None:
    provider = FileSecrets(folder, shared=folder / "common")
    assert read_secrets(provider, ACME, ["crm_token", "mail"]) == {
        "crm_token": "the acme/crm_token of all",
        "mail": "the common/mail of all",
    }
    (folder / "acme" / "crm_token").write_text("another one")
    assert read_secrets(provider, ACME, ["crm_token"]) == {"crm_token": "another one"}


def test_an_orchestrators_links_within_a_tenants_folder_are_followed_and_no_others(folder: Path) -> None:
    provider = FileSecrets(folder)
    (folder / "acme" / "..data").mkdir()
    (folder / "acme" / "..data" / "key").write_text("of a mounted volume")
    (folder / "acme" / "key").symlink_to("..data/key")
    (folder / "acme" / "stolen").symlink_to(folder / "globex" / "crm_token")
    (folder / "linked").symlink_to(folder / "globex")
    assert read_secrets(provider, ACME, ["key"]) == {"key": "of a mounted volume"}
    for tenant, name in ((ACME, "stolen"), (TenantId("linked"), "crm_token")):
        with pytest.raises(SecretMissing):
            read_secrets(provider, tenant, [name])


TRICKS = [
    "../globex/crm_token",
    "..",
    ".",
    "",
    "/etc/passwd",
    "crm_token\0",
    "CRM_TOKEN",
    "crm-token",
    "x/../crm_token",
]


@pytest.mark.parametrize("name", [*TRICKS, "ACME_CRM", "PATH"])
def test_no_name_reaches_another_tenants_secret(folder: Path, name: str) -> None:
    for provider in (FileSecrets(folder), FileSecrets(folder, shared=folder / "common"), MAPPED):
        with pytest.raises(SecretMissing):
            read_secrets(provider, ACME, [name])
        with pytest.raises(SecretMissing):
            read_secrets(provider, TenantId(name), ["crm_token"])


@given(st.text(max_size=12), st.text(max_size=12))
def test_whatever_is_asked_a_tenant_has_its_own_alone(tenant: str, name: str) -> None:
    class Folder(FileSecrets):
        """Where every file that could be asked for is that of another tenant."""

    with pytest.raises(SecretMissing):
        read_secrets(Folder("/proc/self"), TenantId(tenant), [name])


class Answering:
    """A provider that answers, or raises, one thing."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer

    def secret(self, tenant: str, name: str) -> str:
        """Do that."""
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer  # type: ignore[no-any-return]


@pytest.mark.parametrize("answer", [None, 5, "", "short", " " * 20, "x" * 20_000, "with a\0 in it", "bell\a in it"])
def test_what_could_not_be_kept_secret_is_none(answer: object) -> None:
    with pytest.raises(SecretMissing, match="acme"):
        read_secrets(Answering(answer), ACME, ["token"])


@pytest.mark.parametrize("error", [RuntimeError("hvs.master-token"), KeyError("hvs.master-token of all")])
def test_what_a_provider_raises_is_shown_to_nobody(error: Exception) -> None:
    with pytest.raises(SecretMissing) as raised:
        read_secrets(Answering(error), ACME, ["token"])
    assert "hvs" not in raised.value.message and raised.value.__cause__ is None


def test_an_app_is_refused_whose_secrets_and_tools_do_not_fit() -> None:
    def refused(given: object, names: dict[str, tuple[str, ...]], tenants: tuple[str, ...] = ("acme", "globex")) -> str:
        with pytest.raises(InvalidConfig) as raised:
            checked_provider(given, names, tenants)
        return raised.value.message

    both = {"tool crm": ("crm_token",), "tool mail": ("mail",)}
    assert (
        checked_provider(MAPPED, both, ("acme", "globex")) is MAPPED and checked_provider(None, {"t": ()}, ()) is None
    )
    assert "no secret 'crm_token': give App(secrets" in refused(None, both)
    assert "no tenant has a secret 'other'" in refused(MAPPED, {**both, "tool x": ("other",)})
    assert "no tool declares a secret 'mail'" in refused(MAPPED, {"tool crm": ("crm_token",)})
    assert "lists no tenant 'globex'" in refused(MAPPED, both, ("acme",))
    assert "no tool declares any" in refused(FileSecrets("/x"), {})
    assert "secret(tenant, name)" in refused({"crm_token": "x"}, both) and "secret(" in refused(FileSecrets, both)


@pytest.mark.parametrize("names", ["crm_token", ["CRM"], ["a/b"], [5], 5, [""]])
def test_names_that_are_none_are_refused(names: Any) -> None:
    with pytest.raises(InvalidConfig, match="secret"):
        checked_names("tool x", names)
    for wrong in ({"acme": {"A": "X"}}, {"Acme!": {}}, {"acme": {"a": ""}}, {"acme": ["a"]}):
        with pytest.raises(InvalidConfig):
            EnvironmentSecrets(wrong)  # type: ignore[arg-type]


def test_the_secrets_of_a_call_show_none_and_say_which_name_was_not_declared() -> None:
    given = Secrets({"crm_token": "value-of-it"})
    assert f"{given!r} {given}" == "Secrets(crm_token) Secrets(crm_token)"
    with pytest.raises(KeyError, match=r"declares no secret 'other': @tool\(secrets=\('other',\)\)"):
        given["other"]


def test_what_was_given_out_is_known_by_tenant_and_to_the_process_within_a_bound() -> None:
    known = KnownSecrets()
    known.learn(ACME, ["secret of acme"])
    known.learn(GLOBEX, ["secret of globex"])
    text = "secret of acme, secret of globex"
    assert known.of(ACME).text(text) == f"{REDACTED}, secret of globex"
    assert known.everybody().text(text) == f"{REDACTED}, {REDACTED}"
    before = known.of(ACME)
    known.learn(ACME, ["secret of acme"])
    assert known.of(ACME) is before, "nothing is made anew of what is known"
    for number in range(MAX_OF_TENANT):
        known.learn(ACME, [f"secret number {number:04}"])
    assert known.of(ACME).text("secret of acme, secret number 0000") == f"secret of acme, {REDACTED}"
