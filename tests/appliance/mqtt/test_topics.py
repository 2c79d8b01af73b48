"""Topic filters match as MQTT says, templates give topics, and what could go round in a circle is seen."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.errors import ConfigError, InvalidInput
from appliance.mqtt.topics import Filter, KeyedFilter, Template, answer_template, is_topic, values_of

LEVELS = st.text("ab$ü", max_size=2)
TOPICS = st.lists(LEVELS, min_size=1, max_size=4).map("/".join).filter(bool)
FILTERS = st.lists(LEVELS | st.just("+"), min_size=1, max_size=4).map("/".join).filter(bool)


@pytest.mark.parametrize(
    ("text", "topic", "parts"),
    [
        ("plant/+/temp", "plant/north/temp", ("north",)),
        ("plant/+/temp", "plant/north/x/temp", None),
        ("plant/#", "plant/a/b", ("a/b",)),
        ("plant/#", "plant", ("",)),
        ("#", "a/b", ("a/b",)),
        ("+/+", "/finance", ("", "finance")),
        ("+", "/finance", None),
        ("#", "$SYS/uptime", None),
        ("+/uptime", "$SYS/uptime", None),
        ("$SYS/#", "$SYS/uptime", ("uptime",)),
        ("$share/group/plant/+", "plant/1", ("1",)),
        ("a.b", "axb", None),
        ("a/b", "a/b\n", None),
    ],
)
def test_a_filter_matches_as_mqtt_says(text, topic, parts):
    assert Filter(text).match(topic) == parts


@pytest.mark.parametrize(
    "text", ["", "a/#/b", "a#", "a+/b", "$share/group", "$share//a", "$share/a+/b", "a\0", "x" * 65536]
)
def test_what_is_no_filter_is_a_config_error(text):
    with pytest.raises(ConfigError, match="topic filter"):
        Filter(text)


@given(FILTERS, st.booleans(), TOPICS)
def test_a_filter_matches_exactly_the_topics_that_its_levels_say(text, rest, topic):
    wanted = text.split("/") + (["#"] if rest else [])
    given_ = topic.split("/")
    matches = len(given_) >= len(wanted) - rest if rest else len(given_) == len(wanted)
    matches = matches and all(one in ("+", other) for one, other in zip(wanted, given_, strict=False) if one != "#")
    if topic.startswith("$") and wanted[0] in ("+", "#"):
        matches = False
    assert (Filter("/".join(wanted)).match(topic) is not None) == matches


@given(FILTERS, FILTERS, TOPICS)
def test_filters_that_match_one_topic_overlap(one, other, topic):
    first, second = Filter(one), Filter(other)
    assert first.overlaps(second) == second.overlaps(first)
    if first.match(topic) is not None and second.match(topic) is not None:
        assert first.overlaps(second)


@pytest.mark.parametrize(
    ("one", "other", "overlap"),
    [("a/+", "+/b", True), ("a/#", "a", True), ("a/b", "a/c", False), ("a/+", "a", False), ("#", "$SYS/x", False)],
)
def test_overlap_is_judged_by_levels(one, other, overlap):
    assert Filter(one).overlaps(Filter(other)) == overlap


def test_an_answer_goes_to_the_topic_built_from_the_wildcards():
    filter_ = Filter("plant/+/line/#")
    template = answer_template("out/{1}/{2}/x", filter_)
    parts = filter_.match("plant/north/line/3/a")
    assert template.render(values_of("plant/north/line/3/a", parts)) == "out/north/3/a/x"
    assert answer_template("{topic}/answer", filter_).render({"topic": "a/b"}) == "a/b/answer"


@pytest.mark.parametrize("text", ["out/{2}", "out/{name}", "out/+", "$SYS/{1}", "out/#", "{"[:0]])
def test_a_template_that_cannot_be_is_a_config_error(text):
    with pytest.raises(ConfigError, match="topic"):
        answer_template(text, Filter("plant/+"))


def test_a_topic_that_cannot_be_published_to_is_refused_when_it_is_built():
    with pytest.raises(InvalidInput, match="no answer goes to"):
        Template("{1}", ["1"]).render({"1": "$SYS"})


@given(FILTERS, TOPICS)
def test_a_template_s_filter_matches_every_topic_that_it_gives(text, topic):
    filter_ = Filter(text + "/#")
    parts = filter_.match(topic)
    for pattern in ("x/{topic}", f"{{{filter_.wildcards}}}/y", "a/{1}/b"):
        template = answer_template(pattern, filter_)
        if parts is not None and is_topic(topic):
            try:
                given_ = template.render(values_of(topic, parts))
            except InvalidInput:
                continue
            assert template.as_filter().match(given_) is not None


def test_named_levels_are_the_key():
    keyed = KeyedFilter("line/{device}/{sensor}/value")
    assert keyed.filter.text == "line/+/+/value"
    assert keyed.match("line/7/temp/value") == {"device": "7", "sensor": "temp"}
    assert keyed.match("line/7/value") is None


@pytest.mark.parametrize("text", ["line/temp", "line/{a}/{a}", "line/+/{a}", "line/{a}/#", "line/x{a}", "line/{}"])
def test_a_feed_without_a_plain_key_is_a_config_error(text):
    with pytest.raises(ConfigError, match="topic"):
        KeyedFilter(text)


@given(st.text(max_size=6))
def test_what_counts_as_a_topic_can_be_encoded_and_has_no_wildcard(text):
    if is_topic(text):
        assert text.encode()
        assert not set("+#\0") & set(text)
