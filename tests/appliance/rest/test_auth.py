"""Tokens: who gets in, what a broken file does, and that nobody serves the network by accident."""

import hashlib
import hmac
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance import tokens as module
from appliance.config import HttpConfig
from appliance.errors import ConfigError, Forbidden, NotAllowed
from appliance.rest import auth
from appliance.rest.auth import TokenGuard, authorizer, refuse_open_port
from appliance.rest.http_types import Request
from appliance.rest.problems import status_of
from appliance.tokens import Tokens

READER = "reader-0123456789abcdef"
WRITER = "writer-0123456789abcdef"


def write(path: Path, text: str, mode: int = 0o640) -> Path:
    path.write_text(text, encoding="utf-8")
    path.chmod(mode)
    return path


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write(tmp_path / "tokens", f"# two of them\n\npredict {READER}\n  admin\t{WRITER}  \n")


def request(authorization: str | None = None, method: str = "POST", **headers: str) -> Request:
    environ = {"REQUEST_METHOD": method, "PATH_INFO": "/models/iris/rollback"}
    if authorization is not None:
        environ["HTTP_AUTHORIZATION"] = authorization
    return Request(environ | {f"HTTP_{name.upper()}": value for name, value in headers.items()}, 1000)


def allowed(tokens: TokenGuard, token: str, scope: str) -> bool:
    try:
        tokens.check(request(f"Bearer {token}"), scope)
    except NotAllowed:
        return False
    return True


def test_a_token_opens_its_scope_and_admin_opens_predict_too(file):
    tokens = TokenGuard.load(file)
    assert allowed(tokens, READER, "predict")
    assert not allowed(tokens, READER, "admin")
    assert allowed(tokens, WRITER, "predict")
    assert allowed(tokens, WRITER, "admin")


def test_no_token_and_a_wrong_one_are_401_and_too_small_a_scope_is_403(file):
    tokens = TokenGuard.load(file)
    for authorization in (None, "", "Bearer", "Bearer ", f"Basic {READER}", READER, f"Bearer {READER}x", "Bearer é€"):
        with pytest.raises(NotAllowed) as refused:
            tokens.check(request(authorization), "predict")
        assert status_of(refused.value) == 401, authorization
    with pytest.raises(Forbidden) as refused:
        tokens.check(request(f"bearer {READER}"), "admin")
    assert status_of(refused.value) == 403


def test_the_scope_none_needs_no_token(file):
    assert TokenGuard.load(file).check(request(), "none") is None


def test_every_token_is_compared_even_after_one_has_fitted(file, monkeypatch):
    compared = []
    real = hmac.compare_digest
    monkeypatch.setattr(module.hmac, "compare_digest", lambda one, other: compared.append(one) or real(one, other))
    assert allowed(TokenGuard.load(file), READER, "predict")
    assert compared == [hashlib.sha256(token.encode()).digest() for token in (READER, WRITER)]


def test_tokens_are_not_kept_in_memory(file):
    assert READER not in repr(vars(Tokens.load(file)))


def test_a_file_that_everybody_may_read_is_refused_with_what_to_do(tmp_path):
    for mode in (0o644, 0o642, 0o641):
        with pytest.raises(ConfigError, match="chmod 640"):
            TokenGuard.load(write(tmp_path / "tokens", f"predict {READER}\n", mode))


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("secret-0123456789abcdef", "line 2"),
        ("secret-0123456789abcdef predict", "line 2"),
        ("root secret-0123456789abcdef", "line 2"),
        ("predict secret-0123456789 abcdef", "line 2"),
        ("predict secret-0123456789abcdéf", "character"),
        ("predict secret", "6 characters"),
    ],
)
def test_a_mistake_in_the_file_names_the_line_and_never_the_token(tmp_path, line, found):
    with pytest.raises(ConfigError, match=found) as refused:
        TokenGuard.load(write(tmp_path / "tokens", f"predict {READER}\n{line}\n"))
    assert "secret" not in str(refused.value)
    assert refused.value.__cause__ is None


def test_a_file_without_a_token_or_absent_or_binary_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="holds no token"):
        TokenGuard.load(write(tmp_path / "tokens", "# nobody\n"))
    with pytest.raises(ConfigError, match="No such file"):
        TokenGuard.load(tmp_path / "nothing")
    (tmp_path / "tokens").write_bytes(b"predict \xff\xfe\n")
    with pytest.raises(ConfigError, match="UTF-8"):
        TokenGuard.load(tmp_path / "tokens")


def test_a_changed_file_takes_effect_without_a_restart(file, monkeypatch):
    monkeypatch.setattr(module, "CHECK_SECONDS", 0.0)
    tokens = TokenGuard.load(file)
    write(file, f"predict {READER}-new\n")
    assert allowed(tokens, f"{READER}-new", "predict")
    assert not allowed(tokens, READER, "predict")


def test_a_replaced_file_of_the_same_size_and_date_takes_effect(file, monkeypatch):
    monkeypatch.setattr(module, "CHECK_SECONDS", 0.0)
    tokens = TokenGuard.load(file)
    status = file.stat()
    other = write(file.with_name("new"), file.read_text().replace(READER, READER[::-1]))
    os.utime(other, ns=(status.st_atime_ns, status.st_mtime_ns))
    other.replace(file)
    assert allowed(tokens, READER[::-1], "predict")
    assert not allowed(tokens, READER, "predict")


@pytest.mark.parametrize("broken", ["nonsense\n", "", None])
def test_a_broken_new_file_leaves_the_old_tokens_and_logs(file, monkeypatch, caplog, broken):
    monkeypatch.setattr(module, "CHECK_SECONDS", 0.0)
    tokens = TokenGuard.load(file)
    if broken is None:
        file.unlink()
    else:
        write(file, broken)
    assert allowed(tokens, READER, "predict")
    assert "old tokens stay" in caplog.text
    write(file, f"predict {READER}-repaired\n")
    assert allowed(tokens, f"{READER}-repaired", "predict")


def test_the_file_is_not_looked_at_on_every_request(file):
    tokens = TokenGuard.load(file)
    file.unlink()
    assert allowed(tokens, READER, "predict")


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "[::1]", "localhost"])
def test_loopback_needs_no_token(host):
    config = HttpConfig(host=host)
    refuse_open_port(config)
    assert authorizer(config)(request(), "admin") is None


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "10.0.0.7", "edge-7.plant", "127.0.0.1.example.org"])
def test_a_port_that_others_reach_is_refused_without_tokens(host, file):
    with pytest.raises(ConfigError, match="tokens_file"):
        refuse_open_port(HttpConfig(host=host))
    refuse_open_port(HttpConfig(host=host, tokens_file=str(file)))
    refuse_open_port(HttpConfig(host=host, auth="none"))


def test_tokens_and_their_absence_at_once_are_refused(file):
    with pytest.raises(ConfigError, match="leave out one"):
        refuse_open_port(HttpConfig(tokens_file=str(file), auth="none"))


def test_with_a_tokens_file_loopback_needs_a_token_too(file):
    with pytest.raises(NotAllowed):
        authorizer(HttpConfig(tokens_file=str(file)))(request(), "predict")


def test_with_tokens_the_name_that_was_asked_for_does_not_matter(file):
    check = authorizer(HttpConfig(tokens_file=str(file)))
    assert check(request(f"Bearer {WRITER}", host="edge-7.plant", origin="https://other.example"), "admin") is None


def test_a_reload_takes_effect_at_once_and_keeps_the_old_tokens_of_a_broken_file(file, caplog):
    guard = auth.guard(HttpConfig(tokens_file=str(file)))
    write(file, f"predict {READER}-new\n")
    guard.reload()
    assert allowed(guard, f"{READER}-new", "predict")
    write(file, "nonsense\n")
    guard.reload()
    assert allowed(guard, f"{READER}-new", "predict")
    assert "old tokens stay" in caplog.text
    auth.guard(HttpConfig()).reload()


def test_another_sites_page_cannot_change_anything_through_the_browser():
    check = authorizer(HttpConfig())
    with pytest.raises(Forbidden):
        check(request(origin="https://elsewhere.example", host="127.0.0.1:8080"), "admin")
    with pytest.raises(Forbidden):
        check(request(origin="null", host="127.0.0.1:8080"), "admin")
    assert check(request(origin="http://127.0.0.1:8080", host="127.0.0.1:8080"), "admin") is None
    assert check(request(host="127.0.0.1:8080"), "admin") is None


OTHER_NAMES = [
    "evil.example:8080", "evil.example", "127.0.0.1.evil.example", "localhost.evil.example", "notlocalhost", "[evil]",
    "x y", "2130706433", "0x7f.1", "127.1", "127.0.0.1@evil.example", ":8080",
]  # fmt: skip


@pytest.mark.parametrize("name", OTHER_NAMES)
@pytest.mark.parametrize("scope", ["none", "predict", "admin"])
def test_a_name_made_to_mean_this_host_is_answered_nothing_on_loopback(name, scope):
    for config in (HttpConfig(), HttpConfig(auth="none"), HttpConfig(host="::1"), HttpConfig(host="localhost")):
        for method in ("GET", "POST"):
            asked = request(method=method, host=name)
            with pytest.raises(Forbidden, match=r"\[http\] hosts"):
                authorizer(config)(asked, scope)
            with pytest.raises(Forbidden):
                authorizer(config)(request(method=method, host=name, origin=f"http://{name}"), scope)


@pytest.mark.parametrize("name", OTHER_NAMES)
def test_a_name_made_to_mean_this_host_changes_nothing_where_every_name_may_ask(name):
    check = authorizer(HttpConfig(host="0.0.0.0", auth="none"))
    assert check(request(host=name), "predict") is None
    with pytest.raises(Forbidden):
        check(request(origin=f"http://{name}", host=name), "admin")


def test_names_that_the_settings_give_are_this_hosts():
    for config in (
        HttpConfig(hosts=("Edge-7.plant", "")),
        HttpConfig(host="0.0.0.0", auth="none", hosts=("edge-7.plant",)),
    ):
        check = authorizer(config)
        for name in ("edge-7.plant", "EDGE-7.plant:8080", "edge-7.plant.", "127.0.0.1", "[::1]:80"):
            assert check(request(host=name), "admin") is None
            assert check(request(host="127.0.0.1:8080", origin="https://edge-7.plant"), "predict") is None  # a proxy's
        for name in ("edge-8.plant", "edge-7.plant.evil.example", "x.edge-7.plant"):
            with pytest.raises(Forbidden):
                check(request(host=name), "predict")


@pytest.mark.parametrize("scope", ["predict", "admin"])
@pytest.mark.parametrize(
    "origin",
    ["https://elsewhere.example", "null", "", "http://127.0.0.1:3000", "http://localhost:8080", "file://", "http://["],
)
def test_another_sites_page_asks_for_nothing_through_the_browser(scope, origin):
    for config in (HttpConfig(), HttpConfig(host="localhost"), HttpConfig(host="0.0.0.0", auth="none")):
        with pytest.raises(Forbidden, match="another site"):
            authorizer(config)(request(origin=origin, host="127.0.0.1:8080"), scope)


@pytest.mark.parametrize(
    ("site", "asks"), [("cross-site", False), ("same-site", False), ("same-origin", True), ("none", True)]
)
def test_browser_that_says_whose_page_asks_is_believed(site, asks):
    asked = request(host="127.0.0.1:8080", sec_fetch_site=site)
    if asks:
        assert authorizer(HttpConfig())(asked, "predict") is None
    else:
        with pytest.raises(Forbidden):
            authorizer(HttpConfig())(asked, "predict")
    look = request(method="GET", host="127.0.0.1:8080", sec_fetch_site=site)  # a link to the dashboard
    assert authorizer(HttpConfig())(look, "none") is None


@pytest.mark.parametrize(
    "name",
    [
        "127.0.0.1:8080",
        "127.8.8.8",
        "localhost:8080",
        "localhost",
        "a.localhost",
        "LOCALHOST.",
        "[::1]:8080",
        "10.0.0.7:80",
    ],
)
def test_this_hosts_own_page_and_command_line_may_change_what_serves(name):
    check = authorizer(HttpConfig())
    assert check(request(origin=f"http://{name}", host=name), "admin") is None
    assert check(request(host=name), "admin") is None


def test_a_port_said_to_be_open_to_all_is_changed_by_any_name_but_from_no_page():
    assert authorizer(HttpConfig(host="0.0.0.0", auth="none"))(request(host="edge-7.plant:8080"), "admin") is None


@given(st.text(max_size=40), st.text(max_size=40))
def test_any_origin_and_host_are_judged(origin, host):
    try:
        found: object = authorizer(HttpConfig())(request(origin=origin, host=host), "admin")
    except Forbidden as error:
        found = error
    assert found is None or isinstance(found, Forbidden)


@given(st.binary())
def test_any_file_gives_tokens_or_a_config_error_that_keeps_it_secret(tmp_path_factory, content):
    file = tmp_path_factory.mktemp("tokens") / "tokens"
    file.write_bytes(content)
    file.chmod(0o600)
    try:
        found: object = Tokens.load(file)
    except ConfigError as error:
        found = error
    assert isinstance(found, (Tokens, ConfigError))


@given(st.text(max_size=80))
def test_any_header_is_judged_without_an_error_of_another_kind(tmp_path_factory, header):
    file = write(tmp_path_factory.mktemp("tokens") / "tokens", f"predict {READER}\n")
    with pytest.raises(NotAllowed):
        TokenGuard.load(file).check(request(header), "predict")
