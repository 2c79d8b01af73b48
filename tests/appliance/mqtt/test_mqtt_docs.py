"""The configurations that the MQTT pages show are taken as they stand."""

import re
from pathlib import Path

import pytest

from appliance.mqtt.outbox import LOCAL, UPSTREAM
from appliance.mqtt.topic_table import TopicTable
from appliance.settings import load

DOCS = Path(__file__).parents[3] / "docs"
PAGES = [f"how-to/{name}.md" for name in ("connect-a-plant-broker", "rows-from-several-topics", "through-an-outage")]
SUBSCRIPTION = '\n[[mqtt.subscriptions]]\ntopic = "plant/+/sensors"\nanswer = "plant/{1}/prediction"\n'


@pytest.mark.parametrize("page", PAGES)
def test_each_configuration_of_a_page_is_taken(page, tmp_path):
    shown = re.findall(r"^```toml\n(.*?)^```$", (DOCS / page).read_text(), re.MULTILINE | re.DOTALL)
    assert shown
    for text in shown:
        file = tmp_path / "appliance.toml"
        file.write_text(text if "[[mqtt." in text else text + SUBSCRIPTION)
        config = load(file, {}).mqtt
        assert config.host
        topic_table = TopicTable(config, "edge", way=UPSTREAM if config.upstream.host else LOCAL)
        assert topic_table.filters()


@pytest.mark.parametrize("page", ["mqtt.md", *PAGES])
def test_links_and_places_on_the_mqtt_pages_are_there(page):
    for target in re.findall(r"\]\((?!https?://)([^)]+)\)", (DOCS / page).read_text()):
        name, _, place = target.partition("#")
        found = ((DOCS / page).parent / name).resolve()
        assert found.exists(), target
        headings = [re.sub(r"[^\w -]", "", line.lstrip("# ")).lower().replace(" ", "-") for line in
                    found.read_text().splitlines() if line.startswith("#")]  # fmt: skip
        assert not place or place in headings, target
