"""The recipes of docs/how-to/score-engines.md as they stand there, on a real Spark and a real Dask."""

import re
import subprocess
from pathlib import Path

import polars
import pytest

from tests.heavy.score_engines.conftest import score, write_rows

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs" / "how-to" / "score-engines.md"
ROWS, BAD = 20_000, 500


def recipe(title: str) -> str:
    """Return the program of a section of the page."""
    section = PAGE.read_text().split(f"\n## {title}\n")[1].split("\n## ")[0]
    (program,) = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    return program


@pytest.fixture(scope="module")
def table(program, environment, bundle, tmp_path_factory) -> Path:
    """A folder of Parquet files with rows that the model does not take, and local.parquet with the answers."""
    folder = tmp_path_factory.mktemp("recipes")
    write_rows(folder / "rows.csv", ROWS)
    rows = polars.read_csv(folder / "rows.csv", schema_overrides={"sepal_length": polars.Float64})
    rows = rows.with_columns(
        polars.when(polars.int_range(ROWS) % BAD == BAD - 1).then(None).otherwise(polars.col("sepal_length"))
        .alias("sepal_length")
    )  # fmt: skip
    (folder / "in").mkdir()
    for part in range(4):
        rows.slice(part * ROWS // 4, ROWS // 4).write_parquet(folder / "in" / f"{part}.parquet")
    score(program, environment, bundle, folder / "in", "-o", folder / "local.parquet",
          "--bad-rows", "quarantine", "--max-bad", "1%")  # fmt: skip
    return folder


def run(program: Path, environment: dict[str, str], folder: Path, text: str, **names: str) -> polars.DataFrame:
    """Run a recipe with these names, and return what it writes, in the order of the input."""
    path = folder / "recipe.py"
    text = re.sub(r"^", "    ", text, flags=re.MULTILINE)  # below the guard that starting further processes needs
    globals_ = "".join(f"{name} = {value!r}\n" for name, value in names.items())
    path.write_text(f"{globals_}\nif __name__ == '__main__':\n{text}\n")
    done = subprocess.run(
        [str(program.with_name("python")), str(path)], env=environment, capture_output=True, text=True, cwd=folder
    )
    assert done.returncode == 0, done.stderr
    parts = sorted(Path(names["OUTPUT"]).glob("*.parquet"))
    assert parts
    found = polars.concat([polars.read_parquet(part) for part in parts])
    return found.sort(polars.col("plant").str.slice(1).cast(polars.Int64))


def check(found: polars.DataFrame, table: Path) -> None:
    """Raise unless the answers are the local run's, and each bad row says why."""
    expected = polars.read_parquet(table / "local.parquet")
    assert found.columns == [*expected.columns, "bad_row"]
    assert found.height == ROWS
    reasons = found["bad_row"]
    assert reasons.is_not_null().sum() == ROWS // BAD
    assert set(reasons.drop_nulls()) == {"column 'sepal_length': " + REASON}
    assert (reasons.is_not_null() == expected["prediction"].is_null()).all()
    assert (found["prediction"].fill_null("") == expected["prediction"].fill_null("")).all()
    for name in expected.columns[-3:]:
        assert name.startswith("probability_")
        # Blocks of another size: the last bit may differ.
        assert ((found[name] - expected[name]).abs().drop_nulls() < 1e-6).all()
        assert (found[name].is_null() == expected[name].is_null()).all()


REASON = "a value is missing (null or NaN)"


def test_spark(program, environment, bundle, table, tmp_path):
    environment = {**environment, "PYSPARK_PYTHON": str(program.with_name("python")), "SPARK_LOCAL_IP": "127.0.0.1"}
    text = recipe("Spark").replace("SparkSession.builder", 'SparkSession.builder.master("local[2]")')
    found = run(program, environment, tmp_path, text, BUNDLE=str(bundle),
                INPUT=str(table / "in"), OUTPUT=str(tmp_path / "out"))  # fmt: skip
    check(found, table)


def test_dask(program, environment, bundle, table, tmp_path):
    text = recipe("Dask").replace(
        "Client(SCHEDULER)", "Client(n_workers=2, threads_per_worker=1, dashboard_address=None)"
    )
    found = run(program, environment, tmp_path, text, BUNDLE=str(bundle),
                INPUT=str(table / "in"), OUTPUT=str(tmp_path / "out"))  # fmt: skip
    check(found, table)
