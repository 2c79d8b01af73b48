"""A mistake in the configuration is told with its place, with what was meant, and with what may stand there."""

import pytest

from appliance.errors import ConfigError
from appliance.settings import load

ROWS = '[[mqtt.rows]]\nname = "a"\nanswer = "b"\nfeeds = []\n'
FEED = '[[mqtt.rows]]\nname = "a"\nanswer = "b"\n[[mqtt.rows.feeds]]\ntopic = "x/{d}"\n'


@pytest.mark.parametrize(
    ("text", "found", "next_step"),
    [
        ('[[mqtt.subscriptions]]\ntopic = "a"\n[[mqtt.subscriptions]]\ntpoic = "a"\n',
         "[[mqtt.subscriptions]] number 2 has no setting `tpoic`", "did you mean `topic`?"),
        (FEED + "colums = {}\n", "[[mqtt.rows.feeds]] number 1 has no setting `colums`", "did you mean `columns`?"),
        ("[mqtt]\nzzz = 1\n", "[mqtt] has no setting `zzz`", "known are host, port, transport"),
        ('[mqtt.upstream]\nhots = "a"\n', "[mqtt.upstream] has no setting `hots`", "did you mean `host`?"),
        ("[htp]\n", "the configuration has no setting `htp`", "did you mean `http`?"),
        (ROWS + 'when = "all"\n', "[[mqtt.rows]] number 1 when: invalid enum value 'all'",
         "allowed are 'each', 'complete', 'every'"),
        ('[[mqtt.subscriptions]]\ntopic = "a"\npayload = "jsn"\n', "payload: invalid enum value 'jsn'",
         "did you mean 'json'? allowed are 'json', 'cbor', 'value'"),
        (FEED + 'columns = {t = "men"}\n', "columns: invalid enum value 'men'", "did you mean 'mean'? allowed are"),
        ('[http]\nauth = "nne"\n', "http.auth: invalid enum value 'nne'", "did you mean 'none'?"),
        ('[[mqtt.subscriptions]]\nmodel = "a"\n', "number 1: Object missing required field `topic`", "correct it"),
        ("[http]\nport = 70000\n", "http.port: Expected `int` <= 65535", "correct it"),
        ("[store]\ntrusted_keys = [3]\n", "store.trusted_keys: Expected `str`", "correct it"),
        ("mqtt = 3\n", "[mqtt]: Expected `object`", "correct it"),
    ],
)  # fmt: skip
def test_mistake_is_told_with_place_and_remedy(tmp_path, text, found, next_step):
    file = tmp_path / "appliance.toml"
    file.write_text(text)
    with pytest.raises(ConfigError) as told:
        load(file, {})
    assert found in told.value.found
    assert next_step in told.value.next_step
