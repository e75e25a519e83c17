"""What every embedder keeps, whoever computes the vectors; and what is particular to ONNX and to endpoints."""

from __future__ import annotations

import datetime
import hashlib
import ipaddress
import json
import shutil
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from airside.actors.app import App
from airside.memory.embedders import embedder as embedders
from airside.memory.embedders import onnx_embedder
from airside.memory.embedders.embedder import Embedder, SentenceTransformerEmbedder, checked_name
from airside.memory.embedders.endpoint_embedder import TEXTS_A_REQUEST, EndpointEmbedder
from airside.memory.embedders.onnx_embedder import OnnxEmbedder
from airside.memory.embedders.onnx_export import MODEL_FILE
from airside.memory.service import MemoryService
from airside.stack.contracts.memory import Candidate, RecallRequest
from airside.stack.errors import Failed, InvalidConfig
from airside.stack.ids import TenantId

DIMENSION = 16
KEY = "sk-Very.Secret-1234"
PATIENCE_S = 5.0
"""Within which a text of 10 MB must be embedded on a machine that others use: to tokenize it all takes longer."""

needs_onnx = pytest.mark.skipif(
    find_spec("onnxruntime") is None or find_spec("onnx") is None, reason="the extra `onnx` is not installed"
)


def vector(text: str) -> list[float]:
    """Return words as directions, not of unit length."""
    row = [0.25] + [0.0] * (DIMENSION - 1)
    for word in text.lower().split():
        row[int(hashlib.sha256(word.encode()).hexdigest(), 16) % DIMENSION] += 3.0
    return row


def usual(request: dict[str, Any]) -> bytes:
    """Answer as the API does, in another order than it was asked, which the API allows."""
    items = [{"index": i, "object": "embedding", "embedding": vector(t)} for i, t in enumerate(request["input"])]
    return json.dumps({"object": "list", "data": items[::-1], "model": request["model"]}).encode()


Answer = int | bytes | Callable[[Any], None]
"""A status, a body with 200, or what is done with the handler instead."""


@dataclass
class Endpoint:
    """`answers` are those to the next requests, in order; then comes the usual one."""

    url: str = ""
    answers: list[Answer] = field(default_factory=list)
    got: list[tuple[str, dict[str, str], dict[str, Any]]] = field(default_factory=list)
    pauses: list[float] = field(default_factory=list)

    def embedder(self, **options: Any) -> EndpointEmbedder:
        """Return an embedder that asks this endpoint."""
        return EndpointEmbedder(
            **{"url": self.url, "model": "m", "dimension": DIMENSION, "pause": self.pauses.append, **options}
        )


@contextmanager
def an_endpoint(tls: ssl.SSLContext | None = None) -> Iterator[Endpoint]:
    """Run an endpoint on loopback."""
    endpoint = Endpoint()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["content-length"])))
            headers = {name.lower(): value for name, value in self.headers.items()}
            endpoint.got.append((self.path, headers, request))
            answer = endpoint.answers.pop(0) if endpoint.answers else usual(request)
            if callable(answer):
                answer(self)
                return
            body = answer if isinstance(answer, bytes) else f"no, {headers.get('authorization')}".encode()
            self.send_response(200 if isinstance(answer, bytes) else answer)
            self.send_header("location", endpoint.url)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    endpoint.url = f"http{'s' * (tls is not None)}://127.0.0.1:{server.server_port}/v1"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield endpoint
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    """Give a test an endpoint of its own."""
    with an_endpoint() as running:
        yield running


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder in which the int8 model is made once, in a state directory."""
    return tmp_path_factory.mktemp("state") / "models"


@pytest.fixture(scope="module")
def minilm() -> SentenceTransformerEmbedder:
    """Load MiniLM in full precision, once."""
    return SentenceTransformerEmbedder()


@pytest.fixture(scope="module")
def int8(models: Path) -> OnnxEmbedder:
    """Make and load MiniLM in whole numbers, once."""
    return OnnxEmbedder(models)


@pytest.fixture(params=["minilm", pytest.param("int8", marks=needs_onnx), "endpoint"])
def embedder(request: pytest.FixtureRequest) -> Embedder:
    """Each embedder."""
    made = request.getfixturevalue(request.param)
    return made.embedder() if isinstance(made, Endpoint) else made


TEXTS = {
    "empty": "",
    "spaces": "  \n\t ",
    "nul": "a\x00b",
    "lone surrogate": "half \ud83d a pair \udc00",
    "emoji": "\U0001f600" * 300,
    "many words": "word " * 3_000,
    "no end": "x" * 100_000,
}


def test_a_row_of_unit_length_for_each_text_in_its_order(embedder: Embedder) -> None:
    texts = ["the invoice is due on friday", "cats sleep all day", "the invoice is due on friday"]
    rows = embedder.embed(texts)
    assert rows.shape == (3, embedder.dimension) and rows.dtype == np.float32
    assert np.allclose(np.linalg.norm(rows, axis=1), 1.0, atol=1e-5)
    assert rows[0] @ rows[2] > 0.9999 > rows[0] @ rows[1]
    assert np.allclose(rows[1], embedder.embed(texts[1:2])[0], atol=1e-4), "neighbours make no difference"


def test_no_texts_are_no_rows(embedder: Embedder) -> None:
    rows = embedder.embed([])
    assert rows.shape == (0, embedder.dimension) and rows.dtype == np.float32


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS.keys())
def test_any_text_has_a_vector(embedder: Embedder, text: str) -> None:
    rows = embedder.embed([text])
    assert rows.shape == (1, embedder.dimension) and rows.dtype == np.float32
    assert np.linalg.norm(rows[0]) == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize(
    "part", ["all work and no play ", "\u4e2d", " ", "\ud800"], ids=["words", "han", "blank", "half"]
)
def test_ten_megabytes_are_cut_before_anything_reads_them(embedder: Embedder, part: str) -> None:
    text = part * (10_000_000 // len(part))
    began = time.monotonic()
    rows = embedder.embed([text])
    assert time.monotonic() - began < PATIENCE_S
    assert rows.shape == (1, embedder.dimension) and np.isfinite(rows).all()


def test_a_name_is_of_few_characters_and_no_two_models_share_one(embedder: Embedder) -> None:
    assert checked_name(embedder.name) == embedder.name
    names = {"all-MiniLM-L6-v2", "all-MiniLM-L6-v2-int8", "endpoint:127.0.0.1/m"}
    assert embedder.name in names


@pytest.mark.parametrize("name", ["", "a b", "a\n", "\u00e4", "x" * 129, "a'b", "m@1"])
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(InvalidConfig, match="embedder name"):
        checked_name(name)
    with pytest.raises(InvalidConfig, match="embedder name"):
        EndpointEmbedder("https://example.com/v1", "m", 8, name=name)
    assert checked_name("x" * 128) and checked_name("Az0._:/-")


@needs_onnx
def test_whole_numbers_keep_what_is_near_near(minilm: SentenceTransformerEmbedder, int8: OnnxEmbedder) -> None:
    """The two models agree, though their vectors are never compared in a stack."""
    topics = [
        "refund",
        "delivery",
        "password",
        "invoice",
        "holiday",
        "weather",
        "printer",
        "contract",
        "garden",
        "train",
    ]
    forms = [
        "the {} of the customer is late again",
        "who has to approve a {}?",
        "{}",
        "we never talk about any {} here",
    ]
    texts = [form.format(topic) for topic in topics for form in forms]
    cosines = (minilm.embed(texts) * int8.embed(texts)).sum(axis=1)
    assert cosines.min() > 0.96 and cosines.mean() > 0.985


@needs_onnx
def test_the_model_is_made_once_and_a_damaged_one_is_refused(
    int8: OnnxEmbedder, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever loads what is there makes nothing, and nothing half made is left."""
    copy = tmp_path / "models"
    shutil.copytree(models, copy)
    (kept,) = copy.iterdir()
    assert sorted(path.name for path in kept.iterdir()) == [MODEL_FILE, MODEL_FILE + ".sha256"]
    monkeypatch.setattr(onnx_embedder, "_export", lambda folder: pytest.fail("made again"))
    assert np.array_equal(OnnxEmbedder(copy).embed(["a b"]), int8.embed(["a b"]))
    model = bytearray((kept / MODEL_FILE).read_bytes())
    model[len(model) // 2] ^= 1
    (kept / MODEL_FILE).write_bytes(model)
    with pytest.raises(InvalidConfig, match=r"is not the one beside it: remove .*minilm-int8"):
        OnnxEmbedder(copy)
    (kept / MODEL_FILE).unlink()
    with pytest.raises(InvalidConfig, match="remove it"):
        OnnxEmbedder(copy)


@needs_onnx
def test_a_model_that_another_process_made_first_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def export(folder: Path) -> None:
        (folder / MODEL_FILE).write_bytes(b"ours")
        theirs = folder.parents[1] / kept.name
        theirs.mkdir()
        (theirs / MODEL_FILE).write_bytes(b"theirs")
        (theirs / (MODEL_FILE + ".sha256")).write_text(hashlib.sha256(b"theirs").hexdigest())

    kept = tmp_path / f"minilm-int8-{embedders.MINILM_SHA256[:16]}-{onnx_embedder.EXPORT_VERSION}"
    monkeypatch.setattr(onnx_embedder, "_export", export)
    assert onnx_embedder._checked_model(tmp_path) == b"theirs"
    assert list(tmp_path.iterdir()) == [kept]


@needs_onnx
def test_an_export_that_fails_leaves_nothing_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_embedder.sys, "executable", "/bin/false")
    with pytest.raises(Failed, match="export of MiniLM to ONNX failed"):
        OnnxEmbedder(tmp_path)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(InvalidConfig, match="another folder"):
        OnnxEmbedder("/proc/nowhere")


def test_without_the_extra_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_embedder.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InvalidConfig, match=r"airside\[onnx\]"):
        OnnxEmbedder(tmp_path)


def test_other_weights_than_the_pinned_ones_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "model").mkdir()
    monkeypatch.setattr(embedders.importlib.resources, "files", lambda package: tmp_path)
    for make in (SentenceTransformerEmbedder, partial(OnnxEmbedder, tmp_path)):
        with pytest.raises(InvalidConfig, match="is missing"):
            make()
    (tmp_path / "model" / "model.safetensors").write_bytes(b"others")
    for make in (SentenceTransformerEmbedder, partial(OnnxEmbedder, tmp_path)):
        with pytest.raises(InvalidConfig, match="is not the pinned"):
            make()


@needs_onnx
async def test_an_app_takes_the_class_itself(int8: OnnxEmbedder, models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an argument the model is in the state directory that the environment names."""
    monkeypatch.setenv("AIRSIDE_STATE_DIR", str(models.parent))
    monkeypatch.setattr(onnx_embedder, "_export", lambda folder: pytest.fail("made again"))
    app = App(agents={}, tools=[], policy="", directory="", embedder=OnnxEmbedder)
    service = MemoryService(models.parent / "memory", app.embedder, lambda: 1)
    fact = "the customer prefers deliveries on tuesday mornings"
    acme = TenantId("acme")
    kept = Candidate(tenant=acme, text=fact, kind="fact", source="test", sensitivity="internal", ttl_s=60)
    assert (await service.write_if_useful(kept)).code == "stored"
    query = "when does the customer want deliveries?"
    found = await service.retrieve(RecallRequest(tenant=acme, query=query, clearance="internal"))
    assert [record.text for record in found.records] == [fact]


def test_the_models_folder_is_in_the_state_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRSIDE_STATE_DIR", "/var/lib/airside")
    assert onnx_embedder._default_folder() == Path("/var/lib/airside/models")
    monkeypatch.delenv("AIRSIDE_STATE_DIR")
    assert onnx_embedder._default_folder() == Path(".airside/models")


def test_what_is_sent_to_an_endpoint(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key comes from the environment at every request; an empty text, which servers refuse, is not sent as one."""
    monkeypatch.setenv("EMBEDDING_KEY", KEY + "\n")
    endpoint.embedder(key_env="EMBEDDING_KEY", max_characters=5).embed(["", "half \ud800", "longer than that"])
    path, headers, request = endpoint.got[0]
    assert path == "/v1/embeddings" and headers["authorization"] == f"Bearer {KEY}"
    assert request == {"model": "m", "input": [".", "half ", "longe"]}
    endpoint.embedder().embed(["\ud800"])
    assert endpoint.got[1][2]["input"] == ["\ufffd"] and "authorization" not in endpoint.got[1][1]


def test_many_texts_are_several_requests(endpoint: Endpoint) -> None:
    texts = [f"text {i}" for i in range(2 * TEXTS_A_REQUEST + 1)]
    rows = endpoint.embedder(url=endpoint.url + "/").embed(texts)
    assert [len(request["input"]) for _, _, request in endpoint.got] == [TEXTS_A_REQUEST, TEXTS_A_REQUEST, 1]
    expected = np.array([vector(text) for text in texts])
    assert np.allclose(rows, expected / np.linalg.norm(expected, axis=1, keepdims=True), atol=1e-6)


def break_off(handler: Any) -> None:
    """Close the connection in the middle of an answer."""
    handler.send_response(200)
    handler.send_header("content-length", "1000")
    handler.end_headers()
    handler.wfile.write(b"{")
    handler.close_connection = True


def hang_up(handler: Any) -> None:
    """Say nothing at all."""


def named(problem: Answer) -> str:
    """Return what a test's case is called."""
    return getattr(problem, "__name__", str(problem))


@pytest.mark.parametrize("problem", [429, 500, 503, break_off, hang_up], ids=named)
def test_what_may_pass_is_tried_again(endpoint: Endpoint, problem: Answer) -> None:
    endpoint.answers = [problem, problem]
    assert endpoint.embedder().embed(["a"]).shape == (1, DIMENSION)
    assert len(endpoint.got) == 3 and endpoint.pauses == [0.25, 1.0]


@pytest.mark.parametrize("problem", [429, 502, break_off], ids=named)
def test_but_not_for_ever(endpoint: Endpoint, problem: Answer) -> None:
    endpoint.answers = [problem] * 9
    with pytest.raises(Failed, match="the last of 3 attempts"):
        endpoint.embedder().embed(["a"])
    assert len(endpoint.got) == 3


@pytest.mark.parametrize("status", [204, 301, 307, 400, 401, 404])
def test_what_will_not_pass_is_not_and_no_redirect_is_followed(endpoint: Endpoint, status: int) -> None:
    endpoint.answers = [status]
    with pytest.raises(Failed, match=f"status {status}"):
        endpoint.embedder().embed(["a"])
    assert len(endpoint.got) == 1 and endpoint.pauses == []


def test_nobody_there_is_tried_again_and_said() -> None:
    with an_endpoint() as gone:
        pass
    with pytest.raises(Failed, match=r"ConnectionRefusedError .* the last of 3"):
        gone.embedder().embed(["a"])
    assert gone.pauses == [0.25, 1.0]


def test_an_answer_that_trickles_is_given_up(endpoint: Endpoint) -> None:
    """A socket's timeout begins anew with every byte; the whole answer has one of its own."""
    over = threading.Event()

    def trickle(handler: Any) -> None:
        handler.send_response(200)
        handler.end_headers()
        while not over.wait(0.02):
            try:
                handler.wfile.write(b" ")
            except OSError:
                return

    endpoint.answers = [trickle] * 3
    began = time.monotonic()
    with pytest.raises(Failed, match=r"no whole answer in 0\.2 s"):
        endpoint.embedder(timeout_s=0.2).embed(["a"])
    over.set()
    assert time.monotonic() - began < PATIENCE_S


def certificate(folder: Path) -> Path:
    """Write a key and a certificate for 127.0.0.1 that nobody vouches for."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    kinds = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    path = folder / "server.pem"
    path.write_bytes(key.private_bytes(*kinds) + made.public_bytes(kinds[0]))
    return path


def test_over_https_the_server_must_prove_who_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pem = certificate(tmp_path)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(pem)
    with an_endpoint(tls) as endpoint:
        with pytest.raises(Failed, match="certificate does not hold"):
            endpoint.embedder().embed(["a"])
        assert endpoint.got == [] and endpoint.pauses == []
        monkeypatch.setenv("SSL_CERT_FILE", str(pem))
        assert endpoint.embedder().embed(["a"]).shape == (1, DIMENSION)


def answer(*embeddings: Any, **changed: Any) -> bytes:
    """Return an answer with these embeddings."""
    return json.dumps({"data": [{"index": i, "embedding": e} | changed for i, e in enumerate(embeddings)]}).encode()


GOOD = [1.0] * DIMENSION


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (answer([1.0] * (DIMENSION - 1)), "has 15 numbers, where dimension is 16"),
        (answer([]), "has 0 numbers"),
        (answer([float("nan"), *GOOD[1:]]), "no JSON"),
        (answer([float("inf"), *GOOD[1:]]), "no JSON"),
        (answer(GOOD).replace(b"1.0", b"1e999", 1), "no JSON"),
        (answer([1.7e308] * DIMENSION), "no direction"),
        (answer([0.0] * DIMENSION), "no direction"),
        (answer([*GOOD[1:], "1.0"]), "not a list of numbers"),
        (answer([*GOOD[1:], True]), "not a list of numbers"),
        (answer([*GOOD[1:], None]), "not a list of numbers"),
        (answer("AACAPwAAgD8="), "not a list of numbers"),
        (answer(GOOD, GOOD), "given 1 texts"),
        (answer(), "given 1 texts"),
        (answer(GOOD, index=1), "given 1 texts"),
        (answer(GOOD, index=False), "given 1 texts"),
        (answer(GOOD, index="0"), "given 1 texts"),
        (b'{"data": {}}', "no list of embeddings"),
        (b'{"data": [1]}', "no list of embeddings"),
        (b"[]", "no list of embeddings"),
        (b'{"error": "' + KEY.encode() + b'"}', "no list of embeddings"),
        (b"<html>" + KEY.encode(), "no JSON"),
        (b"", "no JSON"),
        (b"[" * 100_000, "no JSON"),
        (answer(GOOD) + b" " * 100_000, "no JSON of at most"),
    ],
)
def test_an_answer_that_is_not_what_was_asked_for_is_refused(
    endpoint: Endpoint, body: bytes, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EMBEDDING_KEY", KEY)
    endpoint.answers = [body]
    with pytest.raises(Failed, match=said) as caught:
        endpoint.embedder(key_env="EMBEDDING_KEY").embed(["a"])
    assert KEY not in str(caught.value) and len(endpoint.got) == 1


def test_a_text_answered_twice_is_refused(endpoint: Endpoint) -> None:
    endpoint.answers = [answer(GOOD, GOOD, index=0)]
    with pytest.raises(Failed, match="given 2 texts"):
        endpoint.embedder().embed(["a", "b"])


def test_vectors_of_any_length_become_unit_vectors(endpoint: Endpoint) -> None:
    endpoint.answers = [answer([3e-310] * DIMENSION, [2] * DIMENSION, [1e300] * DIMENSION)]
    assert np.allclose(endpoint.embedder().embed(["a", "b", "c"]), 0.25)


def test_a_key_is_in_no_error_and_no_repr(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMBEDDING_KEY", KEY)
    asking = endpoint.embedder(key_env="EMBEDDING_KEY")
    assert KEY not in repr(asking) + repr(vars(asking))
    for status in (401, 500):
        endpoint.answers = [status] * 3
        with pytest.raises(Failed) as caught:
            asking.embed(["a"])
        assert KEY not in repr(caught.value) + repr(caught.value.details)
    for unfit in ("", "two words", "line\nbreak: x", "\u00e4"):
        monkeypatch.setenv("EMBEDDING_KEY", unfit)
        with pytest.raises(InvalidConfig, match=r"\$EMBEDDING_KEY is not set, or is no key$"):
            asking.embed(["a"])
        with pytest.raises(InvalidConfig, match="EMBEDDING_KEY"):
            endpoint.embedder(key_env="EMBEDDING_KEY")
    with pytest.raises(InvalidConfig, match="name of a variable") as caught_config:
        endpoint.embedder(key_env=KEY)
    assert KEY not in str(caught_config.value)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"url": "http://example.com/v1"}, "https only"),
        ({"url": "ftp://localhost/v1"}, "give an https"),
        ({"url": "example.com"}, "give an https"),
        ({"url": "https://ann:secret@example.com/v1"}, "credentials"),
        ({"url": "https://ann:secret@example.com:x/v1"}, "embeddings endpoint: "),
        ({"url": "https://example.com/v1?key=secret"}, "without a query"),
        ({"url": "https://example.com/a b"}, "in ASCII"),
        ({"url": ""}, "in ASCII"),
        ({"model": ""}, "model"),
        ({"model": "\ud800", "name": "x"}, "model"),
        ({"model": "m" * 300, "name": "x"}, "model"),
        ({"model": "a model"}, "embedder name"),
        ({"dimension": 0}, "dimension"),
        ({"dimension": True}, "dimension"),
        ({"dimension": 10**9}, "dimension"),
        ({"timeout_s": 0}, "above 0"),
        ({"max_characters": 0}, "above 0"),
    ],
)
def test_an_endpoint_that_is_none_is_refused_at_once(changed: dict[str, Any], said: str) -> None:
    given = {"url": "https://example.com/v1", "model": "m", "dimension": 8} | changed
    with pytest.raises(InvalidConfig, match=said) as caught:
        EndpointEmbedder(**given)
    assert "secret" not in str(caught.value)


def test_an_endpoint_may_be_elsewhere_if_that_is_said() -> None:
    assert EndpointEmbedder("http://example.com/v1", "m", 8, insecure=True).name == "endpoint:example.com/m"
    assert EndpointEmbedder("http://[::1]:8080", "a model", 8, name="local").name == "local"
    assert repr(EndpointEmbedder("https://example.com/v1", "m", 8)) == "EndpointEmbedder(endpoint:example.com/m)"
