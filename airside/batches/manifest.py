"""The manifest of a batch: what it is of, so that another job on the same output is an error that says what differs.

It stands beside the parts as `_manifest.json`, and in the journal as the batch's first entry.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec

from airside.batches.part_store import part_store
from airside.batches.places import local_path, reason_of
from airside.batches.rows import Source
from airside.stack.errors import InvalidInput
from airside.stack.values import Value

NAME = "_manifest.json"
_FORMAT = 1

ACCEPTED = {"policy": ("policy",), "app": ("app_version", "job_schema", "models")}
"""What of a batch may be another when it is taken up, where that is said: the names, and what each is of a manifest."""

_SHOWN = {
    "app_version": "the app's version",
    "policy": "the policy",
    "lane": "the lane",
    "answer_schema": "the schema of answers",
    "job_schema": "the fields that the app's jobs may have",
}


class Manifest(Value):
    """What a batch is of.

    `input` is what `Source.describe` says; `app_version`, `policy` and `models` are the stack's (`Stack.described`);
    `answer_schema` is the JSON Schema of answers, None for any; `job_schema` that of the further fields of its jobs.
    `out` is where its results went when it began: they may have been moved.  `policy_version` is what the policy calls
    itself, for people.  `changes` are those it was taken up under since, a line each; who did so is in the journal.
    """

    batch: str
    input: dict[str, Any]
    app_version: str = ""
    policy: str = ""
    policy_version: str = ""
    models: dict[str, str] = {}
    job_schema: Any = None
    lane: str = ""
    answer_schema: Any = None
    out: str = ""
    changes: tuple[str, ...] = ()
    format: int = _FORMAT

    def differences(self, source: Source, now: Manifest, accepted: frozenset[str] = frozenset()) -> list[str]:
        """Return how what is to be run differs from what the batch is of, in a line each; the input may have grown.

        Without what is `accepted` to be another (`ACCEPTED`).
        """
        return self.input_differences(source) + self.other_settings(self.under(now, accepted))

    def under(self, now: Manifest, accepted: frozenset[str]) -> Manifest:
        """Return how a batch would be now, with what is accepted to be another as it is here."""
        kept = {name: getattr(self, name) for each in accepted for name in ACCEPTED[each]}
        return msgspec.structs.replace(now, **kept)

    def taken_up(self, now: Manifest, accepted: frozenset[str], at: str) -> Manifest:
        """Return what the batch is of from here on: what is accepted is as it is now, and that it changed is noted."""
        names = [name for each in accepted for name in ACCEPTED[each]]
        names += ["policy_version"] if "policy" in accepted else []
        present = msgspec.structs.replace(self, **{name: getattr(now, name) for name in names})
        if not (changed := self.other_settings(present)):
            return self
        lines = tuple(f"{at}: {line}" for line in changed)
        return msgspec.structs.replace(present, changes=self.changes + lines)

    def input_differences(self, source: Source) -> list[str]:
        """Return how the input differs, in a line at most."""
        return [f"the input: {problem}"] if (problem := source.same_prefix(self.input)) else []

    def other_settings(self, now: Manifest) -> list[str]:
        """Return what differs but for the input, in a line each."""
        found = []
        for name, shown in _SHOWN.items():
            before, after = getattr(self, name), getattr(now, name)
            if before != after:
                said = f": it was {before!r:.40}, and now is {after!r:.40}" if isinstance(before, str) else ""
                if name == "policy" and self.policy_version and now.policy_version:
                    said += f" (versions {self.policy_version!r:.40} and {now.policy_version!r:.40})"
                found.append(f"{shown} changed{said}")
        for name in sorted(self.models.keys() | now.models.keys()):
            if self.models.get(name) != now.models.get(name):
                before, after = self.models.get(name, "not there"), now.models.get(name, "not there")
                found.append(f"{name} changed: it was {before:.80}, and now is {after:.80}")
        return found


def read_manifest(place: Path | str) -> Manifest | None:
    """Return the manifest that stands beside parts, None if there is none.

    Raises `InvalidInput` for one that is damaged, or of another format.
    """
    path = local_path(place)
    if path is not None and not path.is_dir():
        return None
    store = part_store(place, makes=False)
    if NAME not in store.names():
        return None
    try:
        with store.opened(NAME) as file:
            found = msgspec.json.decode(bytes(file.read()), type=Manifest)
    except OSError as error:
        raise InvalidInput(f"{store.shown}/{NAME}: {reason_of(error)}") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise InvalidInput(f"{store.shown}/{NAME}: it is no manifest of a batch: give another --out") from None
    if found.format != _FORMAT:
        raise InvalidInput(f"{store.shown}/{NAME}: it is of another version of Airside: give another --out")
    return found


def write_manifest(place: Path | str, manifest: Manifest) -> None:
    """Write the manifest of a new batch, whole or not at all.

    Raises `Failed` if it cannot be written, and `InvalidInput` if somebody else has begun a batch there meanwhile.
    """
    store = part_store(place, makes=True)
    if not store.put_new(NAME, msgspec.json.format(msgspec.json.encode(manifest), indent=1)):
        raise InvalidInput(f"{store.shown}: another process has begun a batch there: give another --out, or --resume")


def rewrite_manifest(place: Path | str, manifest: Manifest) -> None:
    """Write the manifest of a batch that is taken up under another policy or app; raise `Failed` if it cannot be."""
    part_store(place, makes=True).put(NAME, msgspec.json.format(msgspec.json.encode(manifest), indent=1))


def accepted_of(given: Iterable[str]) -> frozenset[str]:
    """Return what is accepted to be another; raise `InvalidInput` for what cannot be, as the input cannot."""
    accepted = frozenset([given] if isinstance(given, str) else given)
    if unknown := sorted(accepted - ACCEPTED.keys()):
        raise InvalidInput(f"accept_changes: {unknown[0]!r:.40} is none of {', '.join(ACCEPTED)}")
    return accepted
