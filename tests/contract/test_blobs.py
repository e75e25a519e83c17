"""Blobs: one suite over all implementations."""

from __future__ import annotations

from pathlib import Path

import pytest

from airside.actors.models.blobs import FileBlobs, blob_problem
from airside.stack.errors import InvalidInput, LayerUnavailable
from airside.stack.ids import TenantId
from airside.stack.models.blobs import Blobs, InMemoryBlobs
from airside.stack.security.encryption import TenantCipher
from tests.helpers import KEY

ACME, GLOBEX = TenantId("acme"), TenantId("globex")
DATA = b"what a model said" * 100


@pytest.fixture(params=["memory", "files"])
def blobs(request: pytest.FixtureRequest, tmp_path: Path) -> Blobs:
    return InMemoryBlobs() if request.param == "memory" else FileBlobs(tmp_path / "blobs", KEY)


async def test_what_is_put_is_got_by_its_name(blobs: Blobs) -> None:
    names = [await blobs.put(ACME, data) for data in (DATA, b"", b"other")]
    assert [await blobs.get(ACME, name) for name in names] == [DATA, b"", b"other"] and len(set(names)) == 3


async def test_the_same_of_one_tenant_has_one_name_and_of_two_has_two(blobs: Blobs) -> None:
    """Nobody sees by the names that two tenants were told the same."""
    assert await blobs.put(ACME, DATA) == await blobs.put(ACME, DATA) != await blobs.put(GLOBEX, DATA)


async def test_a_tenant_gets_nothing_by_the_names_of_another(blobs: Blobs) -> None:
    name = await blobs.put(ACME, DATA)
    with pytest.raises(InvalidInput):
        await blobs.get(GLOBEX, name)


@pytest.mark.parametrize("name", ["", "0" * 64, "../../keys/seal.key", "0" * 63 + "/", "A" * 64])
async def test_what_was_never_put_is_not_got(blobs: Blobs, name: str) -> None:
    with pytest.raises(InvalidInput):
        await blobs.get(ACME, name)


# Of files alone.


async def test_a_damaged_file_is_no_blob_and_is_made_whole_by_the_next_put(tmp_path: Path) -> None:
    blobs = FileBlobs(tmp_path, KEY)
    name = await blobs.put(ACME, DATA)
    path = tmp_path / name[:2] / name
    path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(InvalidInput, match="damaged"):
        await blobs.get(ACME, name)
    assert "are not those" in blob_problem(tmp_path, name)
    assert await blobs.put(ACME, DATA) == name and await blobs.get(ACME, name) == DATA
    assert blob_problem(tmp_path, name) == "" and [p.name for p in path.parent.iterdir()] == [name]


async def test_the_folder_is_its_owners_alone(tmp_path: Path) -> None:
    """One that was made for others to read is not left so."""
    (tmp_path / "blobs").mkdir(mode=0o755)
    for folder in (tmp_path / "blobs", tmp_path / "new"):
        name = await FileBlobs(folder, KEY).put(ACME, DATA)
        modes = [path.stat().st_mode & 0o777 for path in (folder, folder / name[:2], folder / name[:2] / name)]
        assert modes == [0o700, 0o700, 0o600]


async def test_a_disk_that_takes_nothing_is_said(tmp_path: Path) -> None:
    (tmp_path / "blobs").write_text("a file where the folder should be")
    with pytest.raises(LayerUnavailable, match="blobs: "):
        await FileBlobs(tmp_path / "blobs", KEY).put(ACME, DATA)


async def test_another_stacks_key_reads_nothing(tmp_path: Path) -> None:
    name = await FileBlobs(tmp_path, KEY).put(ACME, DATA)
    with pytest.raises(InvalidInput, match="not encrypted for acme with this key"):
        await FileBlobs(tmp_path, b"j" * 32).get(ACME, name)


def test_a_changed_byte_is_never_decrypted() -> None:
    cipher = TenantCipher(KEY)
    data = cipher.encrypt(ACME, b"pay eve")
    for at in range(len(data)):
        with pytest.raises(InvalidInput):
            cipher.decrypt(ACME, data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
    for short in (b"", data[:12], data[:20]):
        with pytest.raises(InvalidInput):
            cipher.decrypt(ACME, short)
