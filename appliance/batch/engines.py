"""What engines that hold Arrow batches call: a bundle's file and batches in, the same batches with the answers out.

    frame.mapInArrow(partial(score_batches, "iris-1.0.0.bundle"), schema)  # Spark; see docs/how-to/score-engines.md

A process loads a bundle once and keeps it, whatever number of tasks it runs.
"""

from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa

from appliance.batch.scoring import Scorer
from appliance.batch.tables.arrow_table import score_batch
from appliance.batch.work import MOST_ROWS
from appliance.bundle import archive
from appliance.bundle.trust import trusted
from appliance.errors import BadRows, NotFound
from appliance.fallback import QualityPolicy
from appliance.inference.version import LoadedVersion

REASON = "bad_row"
"""The column that says why a row has no answer."""
_KEPT = 4  # bundles that a process holds


def scorer_of(bundle: str | Path, public_keys: Sequence[str] = (), quality: bool = False) -> Scorer:
    """Return what scores with a bundle's file, loaded and self-tested in this process at the first call.

    `public_keys` are files of keys (PEM) of which one must have signed it; none takes any bundle. Raises NotFound,
    BundleRefused or SelfTestFailed.
    """
    path = Path(bundle)
    try:
        found = path.stat()
    except OSError as error:
        raise NotFound(f"open bundle {path}", error.strerror or str(error), "check the path on this host") from error
    return _loaded(path, found.st_mtime_ns, found.st_size, tuple(public_keys), quality)


@lru_cache(maxsize=_KEPT)
def _loaded(path: Path, changed: int, size: int, public_keys: tuple[str, ...], quality: bool) -> Scorer:
    """Return what scores with a bundle's file in one of its states."""
    with archive.opened(path, trust=trusted(public_keys)) as opened:
        return Scorer(LoadedVersion(path, 1, opened=opened), quality=QualityPolicy(enabled=quality))


def score_batches(
    bundle: str | Path,
    batches: Iterable[pa.RecordBatch],
    *,
    keep: Sequence[str] | None = None,
    reasons: bool = False,
    public_keys: Sequence[str] = (),
    quality: bool = False,
) -> Iterator[pa.RecordBatch]:
    """Yield batches with the columns to keep (None: all) and the answers, at most 4,096 rows in each, in order.

    A row that the model does not take raises BadRows; with `reasons` it has null answers instead, and each batch has a
    column `bad_row`: why (string), null where a row is good. With `quality` the last column of the answer is the flag
    that says how far to trust a row (string). Raises InvalidInput where a required column is absent or
    of a type that the model cannot take, and what scorer_of() raises.
    """
    scorer = scorer_of(bundle, public_keys, quality)
    for batch in batches:
        for first in range(0, batch.num_rows, MOST_ROWS):
            scored, bad = score_batch(scorer, batch.slice(first, MOST_ROWS), keep=keep)
            if bad and not reasons:
                column = f", column {bad[0].column!r}" if bad[0].column else ""
                where = f"row {first + bad[0].row} of a batch{column}"
                raise BadRows(f"score {where}", bad[0].reason, "mend it, or ask for reasons: reasons=True")
            if reasons:
                told: list[str | None] = [None] * scored.num_rows
                for one in bad:
                    told[one.row] = f"column {one.column!r}: {one.reason}" if one.column else one.reason
                scored = scored.append_column(REASON, pa.array(told, pa.string()))
            yield scored


def scored_schema(
    bundle: str | Path,
    schema: pa.Schema,
    *,
    keep: Sequence[str] | None = None,
    reasons: bool = False,
    public_keys: Sequence[str] = (),
    quality: bool = False,
) -> pa.Schema:
    """Return the schema of what score_batches() yields for batches of a schema."""
    scorer = scorer_of(bundle, public_keys, quality)
    none: Any = pa.RecordBatch.from_pylist([], schema=schema)
    empty, _ = score_batch(scorer, none, keep=keep)
    return empty.schema.append(pa.field(REASON, pa.string())) if reasons else empty.schema
