"""W3C Trace Context: what is a trace, and what is passed over as if it were not there."""

import re
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance import trace_context
from appliance.trace_context import TraceContext, read, read_pairs

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
PARENT = f"00-{TRACE}-{SPAN}-01"
KEY, VALUE = "a" * 256, "v" * 256


def hexadecimal(size: int) -> st.SearchStrategy[str]:
    return st.text("0123456789abcdef", min_size=size, max_size=size).filter(lambda text: text.strip("0"))


def test_a_traceparent_is_taken_apart():
    assert read(PARENT, "rojo=1,congo=t61") == TraceContext(PARENT, "rojo=1,congo=t61", TRACE, SPAN, "01")
    assert read(PARENT).fields == (("traceparent", PARENT),)
    assert read(f" {PARENT}\t", "a=1").fields == (("traceparent", PARENT), ("tracestate", "a=1"))


# As the specification's own test suite (w3c/trace-context, test/test.py) has them.
@pytest.mark.parametrize(
    "wrong",
    [
        "",
        f"00-{TRACE}-{SPAN}",
        f"00-{TRACE}-{SPAN}-0",
        f"00-{TRACE}-{SPAN}-01-what",
        f"00-{TRACE}-{SPAN}-01.",
        f"ff-{TRACE}-{SPAN}-01",
        f"0-{TRACE}-{SPAN}-01",
        f".0-{TRACE}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{TRACE[:-1]}.-{SPAN}-01",
        f"00-{TRACE}-{SPAN[:-1]}g-01",
        f"00-{TRACE}-{SPAN}-.0",
        f"00-{TRACE}1-{SPAN}-01",
        f"01-{TRACE}-{SPAN}-01.what",
        f"{PARENT}, {PARENT}",
        f"01-{TRACE}-{SPAN}-01, 01-{TRACE}-{SPAN}-01",
        f"{PARENT}\n",
        f"00-{TRACE}-{SPAN}-0١",
    ],
)
def test_what_is_no_traceparent_is_passed_over(wrong):
    assert read(wrong, "a=1") is None


def test_a_later_version_may_go_on():
    for later in (f"01-{TRACE}-{SPAN}-01", f"cc-{TRACE}-{SPAN}-01-what-the-future-will-be-like"):
        assert read(later).trace_id == TRACE
        assert read(later).parent == later


@pytest.mark.parametrize(
    "state",
    ["a=1", "a=1,b=2", "a=1, \t b=2", "a=1,,b=2", "0=1", "t@v=1", "a_-*/=!~", f"{KEY}=1", f"a={VALUE}", "a= 1",
     ",".join(f"k{number}=1" for number in range(32))],
)  # fmt: skip
def test_a_tracestate_is_passed_on_as_it_is(state):
    assert read(PARENT, state).state == state


@pytest.mark.parametrize(
    "state",
    ["a", "=1", "a=", "A=1", "_a=1", "a =1", "a=1,a=2", "a=1=2", "a=ä", "a=1\x7f", f"{KEY}a=1", f"a={VALUE}v", ",", " ",
     ",".join(f"k{number}=1" for number in range(33))],
)  # fmt: skip
def test_an_invalid_tracestate_does_not_take_the_traceparent_along(state):
    assert read(PARENT, state) == read(PARENT)


def test_user_properties_have_one_traceparent_and_a_tracestate_in_parts():
    pairs = [("x", "y"), ("traceparent", PARENT), ("tracestate", "a=1"), ("tracestate", "b=2")]
    assert read_pairs(pairs) == read(PARENT, "a=1,b=2")
    assert read_pairs([*pairs, ("traceparent", PARENT)]) is None
    assert read_pairs([("tracestate", "a=1")]) is None


@given(hexadecimal(32), hexadecimal(16), st.text("0123456789abcdef", min_size=2, max_size=2))
def test_every_valid_traceparent_is_read(trace, span, flags):
    found = read(f"00-{trace}-{span}-{flags}")
    assert (found.trace_id, found.span_id, found.flags) == (trace, span, flags)


@given(st.text() | st.text(string.hexdigits + "-, ", max_size=60), st.text() | st.text("ab=,1@ \t", max_size=40))
def test_no_text_can_do_harm(parent, state):
    found = read(parent, state)
    if found is not None:
        assert re.fullmatch(r"[!-~]{55,}", found.parent)
        assert re.fullmatch(r"[ -~\t]*", found.state)


def test_a_trace_is_that_of_its_request():
    first, only = read(PARENT), read(PARENT.replace("00f0", "11f0"))
    assert trace_context.of("a", {"a": first}) is first
    assert trace_context.of("b", {"a": first}) is None
    assert trace_context.of("b", {"": only}) is only
    assert not trace_context.current()
