"""Functions that use something beside their input are refused by the name of it; ordinary ones are not."""

import collections
import copy
import datetime
import decimal
import fractions
import functools
import getpass
import hashlib
import importlib
import itertools
import json
import locale
import logging
import math
import operator
import os
import pathlib
import pkgutil
import platform
import random
import re
import secrets
import socket
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import types
import urllib.request
import uuid
import warnings
import zlib
from datetime import date
from datetime import datetime as moment

import numpy as np
import pandas as pd
import pytest
from numpy.random import default_rng
from scipy import special, stats
from sklearn.compose import TransformedTargetRegressor
from sklearn.feature_selection import SelectFromModel
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils import check_random_state

from appliance.errors import ConversionRefused
from convert.converters import functions, reads, rehearsal, skl2onnx_graph

NOW = datetime.datetime.now
EDGES = {"low": -1.0, "high": 1.0}
GENERATOR = np.random.default_rng(0)
CALLS = []
COUNTER = itertools.count()
FILLED = {}
LOG = logging.getLogger("test")
WEIGHTS = np.array([0.5, 2.0, 1.0])
calls = 0


class Stateful:
    def __init__(self):
        self.calls = 0

    def __call__(self, x):
        self.calls += 1
        return x


class Scaling:
    """A function that is an object, and keeps numbers only."""

    def __init__(self, by):
        self.by = by

    def __call__(self, x):
        return x * self.by

    def plus(self, x):
        return x + self.by


class Configuration:
    """Is made from a file once, and keeps numbers."""

    def __init__(self, by):
        self.by = by

    @classmethod
    def of_file(cls, path):
        return cls(float(pathlib.Path(path).read_text()))


CONFIGURATION = Configuration(2.0)


class Recursive:
    """Asks itself, and another that asks it."""

    def __init__(self, depth):
        self.depth = depth

    def __call__(self, x):
        return self.halved(x, self.depth)

    def halved(self, x, times):
        return self.again(x * 0.5, times - 1) if times else x

    def again(self, x, times):
        return self.halved(x, times)


class Dated:
    def __init__(self, at=None):
        self.at = at

    @property
    def year(self):
        return date.today().year

    def by_kept(self, x):
        return x * self.at()

    def age(self, x):
        return date.today().year - x


DATED = Dated()
LONG = [[index, str(index)] for index in range(3_000)]


def helper_of_years():
    return moment.today().year


def imports_inside(x):
    import time as clock

    return x * clock.time()


def imports_from_inside(x):
    from datetime import date as day

    return x * day.today().year


def imports_of_a_path(x):
    from os.path import getmtime as changed

    return x * changed("/etc/hostname")  # noqa: PTH204 - as users write it


def in_a_branch(x):
    if len(EDGES) > 5:
        return x * time.time()
    return x


def counts_in_a_global(x):
    global calls
    calls += 1
    return x


def notes_each_call(x):
    CALLS.append(1)
    return x


def counter(start=0):
    count = start

    def counted(x):
        nonlocal count
        count += 1
        return x

    return counted


def writes_a_file(x):
    pathlib.Path(tempfile.gettempdir(), "written").write_text("x")
    return x


def reads_by_path(x):
    return x * float(pathlib.Path("/etc/hostname").exists())


def hides_its_file(x):
    try:
        with getattr(__builtins__, "open", None) or vars(sys.modules["builtins"])["open"]("/etc/hostname") as file:
            return x * len(file.read())
    except Exception:
        return x


def from_a_list(x):
    return x * next(iter([moment.now])).__call__().year


def by_attribute(x):
    return x * getattr(datetime, "da" + "te").today().year


def drawn_by_map(x):
    return x * next(map(operator.call, [random.random]))


def in_local_time(x):
    return x * datetime.datetime.fromtimestamp(0).hour


def by_exec(x):
    names = {}
    exec("import time\nread = time.time()", names)
    return x * names["read"]


def unseeded(x):
    return x + default_rng().normal(size=3)


def unseeded_by_none(x):
    return x + default_rng(None).integers(0, 2)


@functools.wraps(np.log1p)
def wrapped(x):
    return x * time.perf_counter()


@functools.cache
def cached_year():
    return date.today().year


OUTSIDE = {
    "date.today": (lambda x: date.today().year - x, "clock"),
    "datetime.date.today": (lambda x: datetime.date.today().year - x, "clock"),
    "datetime.now": (lambda x: x * moment.now().year, "clock"),
    "datetime.utcnow": (lambda x: x * moment.utcnow().year, "clock"),
    "with a time zone": (lambda x: x * moment.now(datetime.UTC).month, "clock"),
    "alias of now": (lambda x: x * NOW().year, "clock"),
    "time.time": (lambda x: x - time.time(), "clock"),
    "monotonic": (lambda x: x - time.monotonic(), "clock"),
    "strftime": (lambda x: x * int(time.strftime("%Y")), "clock"),
    "localtime": (lambda x: x * time.localtime().tm_year, "clock"),
    "Timestamp.now": (lambda x: x * pd.Timestamp.now().year, "clock"),
    "Timestamp.today": (lambda x: x * pd.Timestamp.today().year, "clock"),
    "Timestamp of now": (lambda x: x * pd.Timestamp("now").year, "clock"),
    "to_datetime of today": (lambda x: x * pd.to_datetime("today").year, "clock"),
    "datetime64 of now": (lambda x: x * np.datetime64("now").astype(int), "clock"),
    "datetime64 of today": (lambda x: x - (np.datetime64("today") - np.datetime64("1970-01-01")).astype(int), "clock"),
    "array of now": (lambda x: x * np.array("now", dtype="datetime64[s]").astype(int), "clock"),
    "imported inside": (imports_inside, "clock"),
    "imported from inside": (imports_from_inside, "clock"),
    "imported path": (imports_of_a_path, "files"),
    "in a helper": (lambda x: helper_of_years() - x, "clock"),
    "in a cached helper": (lambda x: cached_year() - x, "clock"),
    "in a method": (Dated().age, "clock"),
    "in a method's object": (Dated(time.time).by_kept, "clock"),
    "in a property": (lambda x: DATED.year - x, "clock"),
    "after a long list": (lambda x: x * len(LONG) * time.time(), "clock"),
    "in a class": (lambda x: Dated().age(x), "clock"),
    "in a branch": (in_a_branch, "clock"),
    "in a partial": (functools.partial(lambda x, at: x * at(), at=time.time), "clock"),
    "in a default": (lambda x, at=time.time: x * at(), "clock"),
    "in a closure": ((lambda at: lambda x: x * at())(time.time), "clock"),
    "in a list": (from_a_list, "clock"),
    "by attribute": (by_attribute, "clock"),
    "wrapped": (wrapped, "clock"),
    "time zone": (in_local_time, "time zone"),
    "time.tzname": (lambda x: x * len(time.tzname[0]), "environment"),
    "random.random": (lambda x: x * random.random(), "random"),
    "random.choice": (lambda x: x * random.choice([1, 2]), "random"),
    "by map": (drawn_by_map, "random"),
    "numpy.random": (lambda x: x + np.random.normal(size=3), "random"),
    "numpy.random.seed": (lambda x: x + (np.random.seed(0), np.random.rand())[1], "random"),
    "a generator kept": (lambda x: x + GENERATOR.normal(), "random"),
    "unseeded": (unseeded, "random"),
    "unseeded by None": (unseeded_by_none, "random"),
    "scipy.stats": (lambda x: x + stats.norm.rvs(), "random"),
    "secrets": (lambda x: x * secrets.randbelow(5), "random"),
    "uuid": (lambda x: x * (uuid.uuid4().int % 3), "random"),
    "urandom": (lambda x: x * os.urandom(1)[0], "environment"),
    "environ": (lambda x: x * float(os.environ["FACTOR"]), "environment"),
    "environ.get": (lambda x: x * float(os.environ.get("FACTOR", 1)), "environment"),
    "getenv": (lambda x: x * float(os.getenv("FACTOR", "1")), "environment"),
    "getpid": (lambda x: x * os.getpid(), "environment"),
    "argv": (lambda x: x * len(sys.argv), "environment"),
    "platform": (lambda x: x * len(platform.node()), "environment"),
    "locale": (lambda x: x * len(str(locale.getlocale())), "environment"),
    "user": (lambda x: x * len(getpass.getuser()), "environment"),
    "open": (lambda x: x * len(open("/etc/hostname").read()), "files"),  # noqa: PTH123, SIM115
    "numpy.loadtxt": (lambda x: x * np.loadtxt("/tmp/factor"), "files"),
    "read_csv": (lambda x: x * pd.read_csv("/tmp/factor").size, "files"),
    "a path that is there": (reads_by_path, "environment|files"),
    "mtime": (lambda x: x * os.path.getmtime("/etc/hostname"), "files"),  # noqa: PTH204
    "hidden": (hides_its_file, "files"),
    "writes": (writes_a_file, "files"),
    "network": (lambda x: x * len(urllib.request.urlopen("http://127.0.0.1:9/").read()), "network"),
    "host name": (lambda x: x * len(socket.gethostname()), "network"),
    "process": (lambda x: x * len(subprocess.check_output(["true"])), "processes"),
    "database": (lambda x: x * sqlite3.connect(":memory:").total_changes, "database"),
    "input": (lambda x: x * float(input()), "keyboard"),
    "id": (lambda x: x * id(x), "process to process"),
    "hash": (lambda x: x * hash("text"), "process to process"),
    "global count": (counts_in_a_global, r"keeps between calls \(calls\)"),
    "closure count": (counter(), r"keeps between calls \(count\)"),
    "list that grows": (notes_each_call, r"keeps between calls \(CALLS\)"),
    "iterator": (lambda x: x * next(COUNTER), "answers otherwise|keeps between calls"),
    "object that counts": (Stateful(), r"keeps between calls \(calls\)"),
    "methodcaller": (lambda x: x * operator.methodcaller("now")(moment).year, "clock"),
    "getattr": (lambda x: x * getattr(pd.Timestamp, "now")().year, "clock"),  # noqa: B009 - hidden from plain reading
    "eval": (lambda x: x * eval("__import__('time').time()"), "clock"),
    "exec": (by_exec, "clock"),
    "globals": (lambda x: x * globals()["time"].time(), "clock"),
    "importlib": (lambda x: x * importlib.import_module("time").time(), "clock"),
    "sys.modules": (lambda x: x * len(sys.modules["os"].environ["PATH"]), "environment"),
    "naive timestamp": (lambda x: x * moment(2024, 1, 1).timestamp(), "time zone"),
    "a coin": (lambda x: x * check_random_state(None).randint(0, 2), "random"),
    "system random": (lambda x: x * random.SystemRandom().random(), "random"),
    "thread": (lambda x: x * threading.get_ident(), "process to process"),
    "references": (lambda x: x * sys.getrefcount(x), "process to process"),
    "package data": (lambda x: x * len(pkgutil.get_data("json", "__init__.py")), "files"),
    "a default that grows": (lambda x, seen=[]: (seen.append(1), x * len(seen))[1], "keeps between|answers otherwise"),
    "argument": (FunctionTransformer(lambda x, at: x * at(), kw_args={"at": time.time}), "clock"),
}


def transformer(function):
    return function if isinstance(function, FunctionTransformer) else FunctionTransformer(function)


@pytest.mark.parametrize(("function", "what"), OUTSIDE.values(), ids=OUTSIDE.keys())
def test_what_lies_outside_of_the_input_is_refused_by_name(data, graph, function, what):
    rows, _ = data["one column"]
    model = transformer(function)
    model.n_features_in_ = 1
    with pytest.raises(ConversionRefused, match=what) as refused:
        graph(model, rows)
    assert "kw_args" in refused.value.next_step or "NumPy" in refused.value.next_step


def seeded_inside(x):
    return x + np.random.default_rng(7).normal(size=5)


def seeded_by_python(x):
    drawing = random.Random(3)
    return x * drawing.random() + drawing.choice([1.0, 2.0]) + np.random.RandomState(3).rand(5)


def quiet(x):
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return np.log(x)


def names_inside(x):
    found = [last := float(index) for index in range(3)]

    def add():
        nonlocal found
        found = [*found, 1.0]
        return sum(found)

    return x * last + add()


def writes_to_the_terminal(x):
    sys.stderr.write("seen ")
    return x


def with_a_class(x):
    return Scaling(2.0)(x)


def warns_and_logs(x):
    warnings.warn("odd", stacklevel=2)
    LOG.warning("odd")
    print("seen", end="")
    return x


def with_numbers_of_python(x):
    total = 0.0
    for index, weight in enumerate([0.5, 2.0, 1.0]):
        total = total + x[:, index] * (weight + math.sqrt(2) + abs(-1) + round(1.5) + max(1, 2) + len("ab"))
    return np.column_stack([total, x[:, 1] * sum(range(4)), x[:, 2] / float("2.5")])


def with_dates_of_its_own(x):
    epoch = (date(2024, 3, 1) - date(1970, 1, 1)).days
    return (
        x
        - epoch
        - moment(2024, 3, 1).year
        - pd.Timestamp("2024-03-01").month
        - int(np.datetime64("2024-03-01", "D").astype(int))
    )


def fills_its_cache_once(x):
    if "weights" not in FILLED:
        FILLED["weights"] = 3.0
    return x * FILLED["weights"]


def with_containers(x):
    counted = collections.Counter("aab")
    named = types.SimpleNamespace(by=counted["a"])
    return x * named.by + sum(sorted({1, 2, 3}))


def with_imports(x):
    import math as m

    from numpy import log1p as log

    return log(np.abs(x)) * m.pi


def decorated(function):
    @functools.wraps(function)
    def inner(x):
        return function(x)

    return inner


@functools.cache
def cached(value):
    return value * 2.0


ORDINARY = {
    "constant": lambda x: x * 2.0,
    "global array": lambda x: x[:, [0, 1, 2]] * WEIGHTS,
    "global dict": lambda x: np.clip(x, EDGES["low"], EDGES["high"]),
    "seeded inside": seeded_inside,
    "seeded by Python": seeded_by_python,
    "quiet": quiet,
    "names inside": names_inside,
    "to the terminal": writes_to_the_terminal,
    "text of a number": lambda x: x * float(f"{2.5:.1f}") * int("7") + len(str(3)),
    "fraction": lambda x: x * float(fractions.Fraction(1, 3)) + float(decimal.Decimal("0.1")) + statistics.mean([1, 2]),
    "digest": lambda x: x * (zlib.crc32(b"a") % 7) + hashlib.md5(b"a").digest()[0],
    "dates": lambda x: (
        x * len(pd.date_range("2024-01-01", "2024-02-01")) + pd.Timestamp("2024-01-01", tz="UTC").timestamp()
    ),
    "copy": lambda x: x * copy.deepcopy(EDGES)["high"] + WEIGHTS.copy()[0],
    "interpolated": lambda x: x * np.interp(0.5, [0, 1], [2, 3]) + special.gamma(4.0),
    "regular expression": lambda x: x * int(re.sub("[a-z]", "", "a2b")) + json.loads("[1]")[0],
    "object": Scaling(3.0),
    "bound method": Scaling(3.0).plus,
    "class inside": with_a_class,
    "asks itself": Recursive(3),
    "partial": functools.partial(np.clip, a_min=-1, a_max=1),
    "closure": (lambda by: lambda x: x * by)(4.0),
    "default": lambda x, by=4.0: x * by,
    "warns, logs, prints": warns_and_logs,
    "numbers of Python": with_numbers_of_python,
    "dates of its own": with_dates_of_its_own,
    "cache filled once": fills_its_cache_once,
    "cached helper": lambda x: x * cached(2.0),
    "containers": with_containers,
    "imports": with_imports,
    "configured": lambda x: x * CONFIGURATION.by,
    "decorated": decorated(lambda x: x + 1.0),
    "a column called now": lambda x: x * {"now": 1.0, "today": 2.0}["now"],
    "ufunc": np.log1p,
    "scipy": special.expit,
    "distribution": lambda x: x * stats.norm.ppf(0.975) + stats.norm.cdf(0.3),
    "sine": lambda x: np.column_stack([np.sin(2 * np.pi * x[:, 0] / 24), np.cos(2 * np.pi * x[:, 0] / 24)]),
    "where": lambda x: np.where(np.isnan(x), 0.0, x),
}


@pytest.mark.parametrize("function", ORDINARY.values(), ids=ORDINARY.keys())
def test_ordinary_functions_are_written(data, assert_same, function):
    rows, _ = data["positive"]
    assert_same(FunctionTransformer(function).fit(rows), rows)


def test_inverses_of_targets_are_watched_too(data, graph):
    rows, numbers = data["numbers"]
    model = TransformedTargetRegressor(Ridge(), func=np.sqrt, inverse_func=lambda y: y * y * date.today().year)
    model.check_inverse = False
    with pytest.raises(ConversionRefused, match="reads the clock"):
        graph(model.fit(rows, np.abs(numbers) + 1), rows)


def test_selections_that_draw_their_importances_are_refused():
    rows = np.random.default_rng(0).normal(size=(40, 3))
    drawn = SelectFromModel(Ridge(), importance_getter=lambda model: np.abs(model.coef_) + np.random.rand(3))
    with pytest.raises(ConversionRefused, match="importance_getter draws random numbers"):
        skl2onnx_graph._check_selections(make_pipeline(drawn, Ridge()).fit(rows, rows[:, 0]))
    plain = SelectFromModel(Ridge(), importance_getter=lambda model: np.abs(model.coef_))
    assert skl2onnx_graph._check_selections(make_pipeline(plain, Ridge()).fit(rows, rows[:, 0])) is None


@pytest.mark.parametrize("year", ["datetime.date.today().year", "time.localtime()[0]", "BASE + 1"])
def test_what_a_module_read_when_it_was_imported_is_refused(data, graph, tmp_path, monkeypatch, year):
    text = f"import datetime\nimport time\nBASE = int(time.time())\nYEAR = {year}\n\ndef age(x):\n    return YEAR - x\n"
    name = f"imported_{abs(hash(year))}"
    (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    rows, _ = data["one column"]
    with pytest.raises(ConversionRefused, match=r"clock.*by (YEAR|BASE) at its import"):
        graph(FunctionTransformer(__import__(name).age).fit(rows), rows)


@pytest.mark.parametrize(
    "text",
    [
        "from computed_there import YEAR\ndef age(x):\n    return YEAR - x\n",
        "import computed_there\ndef age(x):\n    return computed_there.YEAR - x\n",
        "from computed_there import age as other\ndef age(x):\n    return other(x) * 2.0\n",
        "import datetime\nclass Now:\n    year = datetime.date.today().year\ndef age(x):\n    return Now.year - x\n",
        "import time\nkept = {}\nif True:\n    kept[0] = time.localtime()[0]\ndef age(x):\n    return kept[0] - x\n",
        "import time\nage = lambda x, at=time.localtime()[0]: at - x\n",
    ],
    ids=["from", "import", "function", "class", "into a dict", "lambda"],
)
def test_what_was_computed_elsewhere_at_an_import_is_refused(data, graph, tmp_path, monkeypatch, text):
    there = "import datetime\nYEAR = datetime.date.today().year\n\ndef age(x):\n    return YEAR - x\n"
    name = f"computed_here_{zlib.crc32(text.encode())}"
    (tmp_path / "computed_there.py").write_text(there)
    (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    rows, _ = data["one column"]
    with pytest.raises(ConversionRefused, match=r"clock.*by .* at its import"):
        graph(FunctionTransformer(__import__(name).age).fit(rows), rows)


def test_constants_of_a_module_are_kept(data, assert_same, tmp_path, monkeypatch):
    text = (
        "import logging, os, pathlib, time\nLOG = logging.getLogger(__name__)\nSTARTED = time.time()\n"
        "HERE = pathlib.Path(__file__).parent\nDEBUG = os.environ.get('DEBUG')\n"
        "LOW, HIGH = -1.0, 2.0 * 3\nSPAN = HIGH - LOW\n"
        "def clipped(x):\n    LOG.debug('seen')\n    return (x.clip(LOW, HIGH) - LOW) / SPAN\n"
    )
    (tmp_path / "constants_of_a_module.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    rows, _ = data["rows"]
    assert_same(FunctionTransformer(__import__("constants_of_a_module").clipped).fit(rows), rows)


def test_defaults_that_an_import_computes_are_refused(data, graph, tmp_path, monkeypatch):
    text = "import os\n\ndef scaled(x, by=len(os.getcwd())):\n    return x * by\n"
    (tmp_path / "computed_default.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    rows, _ = data["one column"]
    with pytest.raises(ConversionRefused, match=r"environment.*by a default of scaled"):
        graph(FunctionTransformer(__import__("computed_default").scaled).fit(rows), rows)


def test_a_file_that_is_to_be_written_is_not(tmp_path):
    target = tmp_path / "written"

    def writes(x):
        target.write_text("x")
        return x

    assert "files" in rehearsal.outside(lambda tensor: writes(tensor), writes, {})
    assert not target.exists()


def test_what_a_function_prints_in_rehearsals_is_not_heard(capsys):
    assert rehearsal.outside(lambda tensor: (print("seen"), tensor)[1], lambda x: x, {}) is None
    assert capsys.readouterr().out == ""


def test_clock_zone_and_seeds_are_as_before_after_a_rehearsal():
    states = random.getstate(), os.environ.get("TZ"), time.time, sys.getprofile()
    drawn = np.random.get_state()[1].tolist()
    assert rehearsal.outside(lambda tensor: tensor, lambda x: x, {}) is None
    assert (random.getstate(), os.environ.get("TZ"), time.time, sys.getprofile()) == states
    assert np.random.get_state()[1].tolist() == drawn


def test_each_watch_alone_sees_the_clock(monkeypatch):
    def day(x):
        return x * float(date.today().toordinal())

    assert "clock" in reads.outside(day, {})
    assert "clock" in rehearsal.outside(
        lambda tensor: (
            functions.Traced(tensor)._apply(lambda t: t * 1.0, False, [functions.Traced(tensor)]).tensor
            if day(1.0)
            else tensor
        ),
        day,
        {},
    )
    monkeypatch.setattr(rehearsal, "_called", lambda *event: None)
    assert "another time" in rehearsal.outside(lambda tensor: tensor * day(1.0), day, {})
