"""The stack's keys in its state directory."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from airside.stack.errors import Failed
from airside.stack.security.keyring import KeyRing


def test_on_a_full_disk_it_says_which_and_leaves_no_key_that_is_not_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(Failed, match=r"^the disk of .*keys is full: make room\. .*seal\.key: it cannot be written"):
            KeyRing.open(tmp_path / "keys")
    assert not list((tmp_path / "keys").iterdir())
    assert KeyRing.open(tmp_path / "keys") == KeyRing.open(tmp_path / "keys")
