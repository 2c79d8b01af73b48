"""Which arm a key meets: shares that hold, keys that stay, and salts that have nothing to do with each other."""

import random
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.routing import Router

KEYS = [f"device-{number}" for number in range(100_000)]


def keys_of(router: Router, version: str, keys=KEYS) -> set[str]:
    return {key for key in keys if router.pick(key, 0.0) == version}


def test_two_arms_have_their_shares_of_many_keys_and_the_same_key_stays():
    router = Router("9f3c2a10d4e5b6a7", [("1.0.0", 0.95), ("2.0.0", 0.05)])
    chosen = keys_of(router, "2.0.0")
    assert len(chosen) / len(KEYS) == pytest.approx(0.05, abs=0.005)
    assert chosen == keys_of(Router("9f3c2a10d4e5b6a7", [("1.0.0", 0.95), ("2.0.0", 0.05)]), "2.0.0")


def test_a_greater_share_moves_no_key_back():
    before: set[str] = set()
    for share in (0.0, 0.01, 0.05, 0.25, 0.5, 1.0):
        chosen = keys_of(Router("salt", [("1.0.0", 1 - share), ("2.0.0", share)]), "2.0.0", KEYS[:20_000])
        assert before <= chosen
        before = chosen
    assert len(before) == 20_000


def test_two_salts_choose_keys_that_have_nothing_to_do_with_each_other():
    shares = [("1.0.0", 0.8), ("2.0.0", 0.2)]
    one, other = (keys_of(Router(salt, shares), "2.0.0") for salt in ("0" * 16, "1" + "0" * 15))
    assert len(one & other) / len(one) == pytest.approx(0.2, abs=0.01)


def test_several_arms_have_their_shares_and_a_change_moves_as_few_keys_as_can_be():
    shares = [("1.0.0", 0.6), ("2.0.0", 0.3), ("3.0.0", 0.1)]
    router = Router("salt", shares)
    for version, share in shares:
        assert len(keys_of(router, version)) / len(KEYS) == pytest.approx(share, abs=0.005)
    raised = Router("salt", [("1.0.0", 0.5), ("2.0.0", 0.3), ("3.0.0", 0.2)])
    moved = [key for key in KEYS if router.pick(key, 0.0) != raised.pick(key, 0.0)]
    assert len(moved) / len(KEYS) < 0.13
    assert {raised.pick(key, 0.0) for key in moved} <= {"2.0.0", "3.0.0"}  # none to the arm that lost


def test_requests_without_a_key_go_by_chance_in_the_same_shares():
    shares = [("1.0.0", 0.7), ("2.0.0", 0.2), ("3.0.0", 0.1)]
    draw = random.Random(7).random
    for arms in (shares, [("1.0.0", 0.9), ("2.0.0", 0.1)]):
        router = Router("salt", arms)
        got = [router.pick("", draw()) for _ in range(50_000)]
        for version, share in arms:
            assert got.count(version) / len(got) == pytest.approx(share, abs=0.01)


def test_another_process_with_another_hash_seed_chooses_alike():
    code = (
        "from appliance.routing import Router\n"
        "router = Router('salt', [('1.0.0', 0.5), ('2.0.0', 0.3), ('3.0.0', 0.2)])\n"
        "print(''.join(router.pick(f'device-{number}', 0.0)[0] for number in range(200)))"
    )
    told = [
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": "."},
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    ]
    assert told[0] == told[1]
    assert {*told[0].decode().strip()} == {"1", "2", "3"}


@given(st.text(), st.floats(0, 1, exclude_max=True), st.floats(0, 1), st.integers(1, 5))
def test_any_key_and_draw_meets_an_arm_that_has_a_share(key, draw, share, arms):
    rest = (1 - share) / arms
    shares = [("0.0.0", share), *((f"{number}.0.0", rest) for number in range(1, arms + 1))]
    met = Router("salt", shares).pick(key, draw)
    assert dict(shares)[met] > 0 or (not key and met == "0.0.0")
