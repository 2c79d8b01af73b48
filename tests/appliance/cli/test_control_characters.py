"""Texts of others on a terminal: whatever a bundle, a server, a key or a file name holds, no control arrives raw."""

import http.server
import json
import re
import threading
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from appliance.bundle import archive, keys, signature
from appliance.cli import appliance as command
from appliance.plain_text import plain, plain_json

EVIL = "a\x1b[2Jb\x1b]0;owned\x07c\x9b31md\x7fe\u202ef\u2028g\u2066h\r\nnext:  sudo run me\x00"
RAW = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2028\u2029\u2066-\u2069]")


def check(result: Result, *, shows: str = r"\x1b[2J") -> None:
    """Fail where a control reached the output, or the text was left out."""
    said = result.stdout + result.stderr
    assert not RAW.search(said), RAW.search(said)
    assert shows in said
    assert not re.search(r"^next:\s+sudo", said, re.MULTILINE)


@pytest.fixture
def run(tmp_path) -> Callable[..., Result]:
    def invoke(*arguments: object, **environment: str) -> Result:
        known = {"APPLIANCE_STATE_DIR": str(tmp_path / "state"), **environment}
        return CliRunner().invoke(command, [str(one) for one in arguments], env=known)

    return invoke


@pytest.fixture
def evil(tmp_path, make_bundle) -> Path:
    """A sound bundle, every free text of whose manifest is full of controls."""
    path = make_bundle(tmp_path)
    bundle = archive.open_bundle(path)
    manifest = json.loads(bundle.members[archive.MANIFEST])
    manifest["provenance"] |= {"source": EVIL, "model_type": EVIL}
    changed = msgspec.convert(manifest, type(bundle.manifest))
    members = bundle.members
    path.write_bytes(archive.write(changed, members[archive.MODEL], members[archive.PARITY], members[archive.EXAMPLES]))
    return path


def test_inspect_shows_controls_by_their_number(run, evil):
    result = run("inspect", evil)
    assert result.exit_code == 0, result.stderr
    check(result)
    assert r"\u202ef\u2028g\u2066h\r\nnext:" in result.stdout


def test_inspect_s_document_stays_json_and_means_the_same(run, evil):
    result = run("inspect", evil, "--json")
    check(result, shows="owned")
    assert json.loads(result.stdout)["provenance"]["source"] == EVIL


def test_the_certificate_is_shown_without_controls(run, tmp_path, make_bundle):
    path = make_bundle(tmp_path)
    bundle = archive.open_bundle(path)
    parity = json.dumps({**json.loads(bundle.members[archive.PARITY]), "why": EVIL}, ensure_ascii=False).encode()
    members = bundle.members
    path.write_bytes(archive.write(bundle.manifest, members[archive.MODEL], parity, members[archive.EXAMPLES]))
    result = run("inspect", path, "--certificate")
    check(result, shows="owned")
    assert json.loads(result.stdout)["why"] == EVIL


@pytest.mark.parametrize(
    "arguments", [("inspect",), ("verify",), ("install",), ("sign", "--key", "/nowhere"), ("index",)]
)
def test_a_file_s_name_or_a_damaged_manifest_is_quoted_without_controls(run, tmp_path, arguments):
    path = tmp_path / "e\x1b[2J\u202evil.bundle"
    path.write_bytes(b"no zip")
    first, *rest = arguments
    check(run(first, path, *rest))


@pytest.mark.parametrize(
    "arguments",
    [
        ("activate", EVIL[:-1], "1.0.0"),
        ("rollback", EVIL[:-1]),
        ("mark-good", EVIL[:-1]),
        ("deactivate", EVIL[:-1]),
        ("remove", EVIL[:-1], "1.0.0"),
        ("probe", EVIL[:-1]),
        ("install", f"/nowhere/{EVIL[:-1]}"),
        ("verify", f"/nowhere/{EVIL[:-1]}"),
        (EVIL[:-1],),
        ("models", f"--{EVIL[:-1]}"),
        ("models", "--config", f"/nowhere/{EVIL[:-1]}"),
        ("keygen", f"/nowhere/{EVIL[:-1]}", "--no-password"),
    ],
)
def test_what_was_typed_or_expanded_is_quoted_without_controls(run, arguments):
    result = run(*arguments)
    assert result.exit_code != 0
    check(result)


@pytest.mark.parametrize("name", ["model.onnx", "manifest.json"])
def test_an_unknown_member_s_name_is_quoted_without_controls(run, tmp_path, make_bundle, name):
    path = make_bundle(tmp_path)
    path.write_bytes(path.read_bytes().replace(name.encode(), b"\x1b[2J\x9b".ljust(len(name), b"x")))
    check(run("verify", path), shows="1b[2J")


def test_a_key_that_is_none_is_quoted_without_controls(run, evil, tmp_path):
    private, _ = keys.generate_key()
    bundle = archive.open_bundle(evil)
    evil.write_bytes(archive.with_signature(bundle, signature.sign(bundle.members, private)))
    key = tmp_path / "k\x1b[2J.pub"
    key.write_bytes(b"-----BEGIN \x1b[2J\x9b-----\n")
    check(run("verify", evil, "--key", key), shows="no public key")


@pytest.mark.parametrize("verb", ["convert", "lint"])
def test_a_pickle_s_error_is_shown_without_controls(run, tmp_path, verb):
    model = tmp_path / "model.pkl"
    model.write_bytes(b"c\x1b[2J\nname\n.")  # asks for a module of this name
    (tmp_path / "sample.csv").write_text("a\n1\n")
    rest = ["--name=iris", "--version=1.0.0", f"--sample={tmp_path / 'sample.csv'}", "-o", tmp_path / "out"]
    result = run(verb, model, *(rest if verb == "convert" else []))
    assert result.exit_code != 0
    check(result)


@pytest.mark.parametrize("state", ["receipts", "record"])
def test_what_lies_in_the_state_folder_is_shown_without_controls(run, tmp_path, make_bundle, state):
    run("install", make_bundle(tmp_path))
    model = tmp_path / "state/models/iris"
    if state == "record":
        (model / "activation.json").write_text(json.dumps({EVIL: 1}))
    else:
        (model / "activation.json").write_text(json.dumps({"active": f"1.0.0{EVIL}", "why": EVIL}))
    for arguments in (("models",), ("status",), ("doctor",), ("models", "--json"), ("status", "--json")):
        result = run(*arguments, APPLIANCE_HTTP_PORT="1")
        assert not RAW.search(result.stdout + result.stderr)
        if "--json" in arguments:
            json.loads(result.stdout)


@pytest.fixture
def liar() -> Iterator[int]:
    """A server on loopback whose every answer is full of controls; gives its port."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer = {"name": EVIL, "version": EVIL, "error": EVIL, "models": [{"name": EVIL, "problem": EVIL}],
                      "status": EVIL, "why": [EVIL], "reasons": [EVIL], "title": EVIL, "detail": EVIL}  # fmt: skip
            body = json.dumps(answer, ensure_ascii=False).encode()
            self.send_response(503, "\x1b[2J")
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET  # noqa: N815 - the library's own name

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


@pytest.mark.parametrize("arguments", [("status",), ("status", "--ready"), ("probe", "iris"), ("doctor",)])
def test_what_a_service_answers_is_shown_without_controls(run, tmp_path, make_bundle, liar, arguments):
    run("install", make_bundle(tmp_path))
    run("activate", "iris", "1.0.0")
    result = run(*arguments, APPLIANCE_HTTP_PORT=str(liar))
    assert result.stdout + result.stderr
    assert not RAW.search(result.stdout + result.stderr)


def test_what_a_source_says_is_shown_without_controls(run, tmp_path, liar):
    _, public = keys.generate_key()
    (tmp_path / "key.pub").write_bytes(public)
    settings = {"APPLIANCE_STORE_TRUSTED_KEYS": str(tmp_path / "key.pub"), "APPLIANCE_PULL_MODELS": "iris"}
    entry = {"name": EVIL, "version": EVIL, "file": EVIL, "sha256": EVIL, "size": 1}
    for raw in (json.dumps({"format": 1, "bundles": [entry]}), json.dumps({EVIL: EVIL}), EVIL):
        (tmp_path / "index.json").write_text(raw, encoding="utf-8", errors="surrogatepass")
        result = run("pull", APPLIANCE_PULL_SOURCE=str(tmp_path), **settings)
        assert result.exit_code == 3
        assert not RAW.search(result.stdout + result.stderr)
    result = run("pull", APPLIANCE_PULL_SOURCE=f"http://127.0.0.1:{liar}/index.json", **settings)
    assert not RAW.search(result.stdout + result.stderr)


@given(st.text())
def test_plain_text_has_one_line_and_no_order_for_a_terminal(text):
    shown = plain(text)
    assert len(shown.splitlines()) <= 1
    assert not RAW.search(shown)
    assert all(unicodedata.category(one) not in ("Cc", "Zl", "Zp", "Cs") for one in shown)
    if text.isprintable():
        assert shown == text


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"])))
def test_a_document_in_plain_characters_means_the_same(text):
    document = plain_json(json.dumps({"text": text}, ensure_ascii=False))
    assert json.loads(document) == {"text": text}
    assert not RAW.search(document)


def test_nothing_is_printed_beside_the_one_function():
    root = Path(__file__).parents[3]
    printing = re.compile(r"\bclick\.(echo|secho|echo_via_pager)\(|\bprint\(|std(out|err)\.write\(|print_exc\(")
    for path in [*(root / "appliance").rglob("*.py"), *(root / "convert").rglob("*.py")]:
        if path.name != "output.py":
            assert not printing.search(path.read_text(encoding="utf-8")), path
