"""What the inventory says is what the program reads."""

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.settings import load
from tests.ansible.plugins import plugin

to_toml = plugin("filter", "toml").to_toml

SCALARS = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"])),
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False),
)
VALUES = st.recursive(
    st.one_of(SCALARS, st.lists(SCALARS, max_size=3)),
    lambda inner: st.one_of(
        st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=8), inner, max_size=3),
        st.lists(
            st.dictionaries(st.text("ab. \"'", max_size=3), inner, min_size=1, max_size=2), min_size=1, max_size=2
        ),
    ),
    max_leaves=8,
)


@given(st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=8), VALUES, max_size=4))
def test_whatever_is_written_is_read_again(document):
    assert tomllib.loads(to_toml(document)) == document


def test_the_program_reads_what_the_role_writes(tmp_path):
    settings = {
        "http": {"host": "0.0.0.0", "port": 8081, "tokens_file": "/etc/appliance/tokens"},
        "store": {"trusted_keys": ["/etc/appliance/keys/plant.pub"]},
        "mqtt": {
            "host": "broker",
            "subscriptions": [{"topic": "line/+/f", "answer": "line/{1}/p", "fields": {"sepal length (cm)": "data.a"}}],
            "upstream": {"host": "head-office", "tls": True},
        },
    }
    file = tmp_path / "appliance.toml"
    file.write_text(to_toml(settings))
    config = load(file, {})
    assert (config.http.port, config.store.trusted_keys) == (8081, ("/etc/appliance/keys/plant.pub",))
    assert config.mqtt.subscriptions[0].fields == {"sepal length (cm)": "data.a"}
    assert config.mqtt.upstream.tls is True


@pytest.mark.parametrize("value", [None, {1, 2}, b"bytes"])
def test_what_toml_cannot_say_is_refused_by_its_place(value):
    with pytest.raises(ValueError, match=r"http\.port is"):
        to_toml({"http": {"port": value}})
