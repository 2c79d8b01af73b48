"""A second broker for the answers, and an outbox that is full: where things go, and that the flow goes on."""

import pytest

ROW = [5.1, 3.5, 1.4, 0.2]
PLANT = {"topic": "plant/+/sensors", "model": "iris", "answer": "plant/{1}/prediction", "echo": ["n"]}
NAMED = {"sepal_length": 5.1, "sepal_width": 3.5, "petal_length": 1.4, "petal_width": 0.2}


@pytest.fixture
def far(start_broker):
    return start_broker("far")


def upstream(far, **rest) -> dict:
    return {"host": "127.0.0.1", "port": far.port, **rest}


def test_answers_go_upstream_while_responses_and_errors_go_back(listen, plain, far):
    running = listen(subscriptions=[{**PLANT, "respond": ["replies"]}], upstream=upstream(far)).connected()
    near, head = plain("replies", "plant/+/prediction", "appliance/edge/errors"), plain("#", port=far.port)
    near.publish("plant/a/sensors", ROW)
    near.publish("plant/a/sensors", ROW, ResponseTopic="replies")
    near.publish("plant/a/sensors", b"bad")
    assert len(head.wait(1, "plant/a/prediction")) == 1
    assert len(near.wait(1, "replies")) == 1
    assert len(near.wait(1, "appliance/edge/errors")) == 1
    assert [message.topic for message in near.heard if message.topic.startswith("plant")] == []
    assert head.wait(1, "appliance/edge/online")[0].payload == b"online"
    assert running.listener.state().connected == {"local": True, "upstream": True}


def test_the_same_topics_may_be_used_upstream_since_nothing_comes_back_from_there(listen, plain, far):
    listen(
        subscriptions=[{"topic": "plant/#", "model": "iris", "answer": "{topic}"}], upstream=upstream(far)
    ).connected()
    head = plain("plant/#", port=far.port)
    plain().publish("plant/a", ROW)
    assert len(head.wait(1, "plant/a")) == 1


def test_what_waited_for_the_upstream_broker_is_flagged_and_bears_its_first_time(listen, plain, far, until):
    head = plain("plant/#", port=far.port, kept=True)  # before the listener may send
    far.stop()
    running = listen(subscriptions=[PLANT], upstream=upstream(far))
    until(lambda: running.listener.state().connected["local"], "connected")
    near = plain()
    for number in range(5):
        near.publish("plant/a/sensors", {**NAMED, "n": number})
    until(lambda: running.listener.state().waiting == 5, "kept them")
    assert any("refused" in problem for problem in running.listener.state().problems)
    far.start()
    running.connected()
    answers = head.answers(5)
    assert [answer["n"] for answer in answers] == list(range(5))
    assert all(answer["replayed"] and answer["predicted_at"].startswith("20") for answer in answers)
    assert dict(head.heard[0].properties.UserProperty)["replayed"] == "true"
    until(lambda: running.listener.state().waiting == 0, "deleted them")


def test_an_outbox_that_refuses_acknowledges_nothing_until_there_is_room(listen, plain, far, until):
    head = plain("plant/#", port=far.port, kept=True)  # before the listener may send
    far.stop()
    running = listen(subscriptions=[PLANT], upstream=upstream(far), outbox_bytes=3000)
    until(lambda: running.listener.state().connected["local"], "connected")
    near = plain()
    for number in range(100):
        near.publish("plant/a/sensors", {**NAMED, "n": number})
    until(lambda: any("outbox_bytes" in problem for problem in running.listener.state().problems), "said so")
    assert 0 < running.listener.state().answered < 100
    assert running.listener.state().waiting_bytes >= 3000
    far.start()
    assert [answer["n"] for answer in head.answers(100)] == list(range(100))
    until(lambda: running.listener.state().problems == [], "had no problem any more")


@pytest.mark.parametrize(("policy", "kept"), [("oldest", slice(-5, None)), ("newest", slice(None, 5))])
def test_an_outbox_that_drops_goes_on_and_counts(listen, plain, far, until, policy, kept):
    head = plain("plant/#", port=far.port, kept=True)  # before the listener may send
    far.stop()
    running = listen(subscriptions=[PLANT], upstream=upstream(far), outbox_bytes=3000, outbox_full=policy)
    until(lambda: running.listener.state().connected["local"], "connected")
    near = plain()
    for number in range(60):
        near.publish("plant/a/sensors", {**NAMED, "n": number})
    until(lambda: running.listener.state().received == 60, "took all")
    far.start()
    heard = head.answers(60 - until(lambda: running.listener.state().dropped, "dropped some"))
    assert [answer["n"] for answer in heard][kept] == list(range(60))[kept]


def test_messages_that_wait_for_a_model_count_for_the_quota(listen, plain, until):
    running = listen(subscriptions=[PLANT | {"model": "late"}], outbox_bytes=2000).connected()
    near = plain()
    refuses = lambda: any("outbox_bytes" in problem for problem in running.listener.state().problems)  # noqa: E731

    def published_until_refused() -> bool:
        near.publish("plant/a/sensors", ROW)
        return refuses()

    until(published_until_refused, "refused")
    kept = running.listener.state().parked
    near.publish("plant/a/sensors", ROW)
    assert kept >= 2000 // 200
    assert running.listener.state().parked == kept


def test_messages_of_a_dropped_subscription_are_said_to_wait(listen, plain, until):
    running = listen(subscriptions=[PLANT | {"model": "late"}]).connected()
    plain().publish("plant/a/sensors", ROW)
    until(lambda: running.listener.state().parked == 1, "waits")
    running.stop()
    again = listen(subscriptions=[{"topic": "other", "model": "iris", "answer": "out"}]).connected()
    assert any("no longer subscribed to" in problem for problem in again.listener.state().problems)


@pytest.mark.parametrize("queued", [1_000_000, 0])
def test_an_answer_that_the_broker_refuses_is_kept_and_said_and_stops_nothing(
    listen, plain, broker, tmp_path, until, queued
):
    rules = tmp_path / "rules"
    rules.write_text("topic readwrite plant/+/sensors\ntopic readwrite appliance/#\ntopic readwrite free/#\n")
    broker.stop()
    # mosquitto 2.0 closes the connection after a refusal where its queue has no limit.
    broker.configure(f"acl_file {rules}", f"max_queued_messages {queued}")
    broker.start()
    running = listen(subscriptions=[PLANT, {"topic": "free/in", "model": "iris", "answer": "free/out"}]).connected()
    client = plain("free/out")
    client.publish("plant/a/sensors", ROW)
    until(lambda: any("not authorized" in problem for problem in running.listener.state().problems), "said so")
    assert running.listener.state().waiting == 1
    until(lambda: running.listener.state().connected["local"], "connected again")
    client.publish("free/in", ROW)
    client.wait(1, "free/out")
    until(lambda: running.listener.state().waiting == 1, "only the refused one waits")


def test_reports_of_bad_messages_that_nobody_may_read_do_not_fill_the_outbox(listen, plain, broker, tmp_path, until):
    rules = tmp_path / "rules"
    rules.write_text("topic readwrite plant/#\ntopic readwrite appliance/edge/online\n")
    broker.stop()
    broker.configure(f"acl_file {rules}")
    broker.start()
    running = listen(subscriptions=[PLANT]).connected()
    client = plain("plant/+/prediction")
    for _ in range(20):
        client.publish("plant/a/sensors", b"nonsense")
    until(lambda: any("reports of bad messages" in problem for problem in running.listener.state().problems), "said so")
    until(lambda: running.listener.state().waiting == 0, "let go of them")
    client.publish("plant/a/sensors", ROW)
    assert client.answers(1)[0]["prediction"]
    assert running.listener.state().refused == {"payload": 20}
