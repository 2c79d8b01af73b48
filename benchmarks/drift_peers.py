"""Evidently and NannyML on the streams of benchmarks/drift.py, each installed in an environment of its own.

The environments live in BENCH_PEERS_DIR (a folder of the temporary directory by default) and are made once.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.drift_streams import ROWS, STREAMS

WINDOWS = 60
"""That each peer judges of each stream: both take a tenth of a second or more for one."""
_PACKAGES = {
    "evidently": ["evidently", "pandas<3"],  # it imports what pandas 3 lacks
    "nannyml": ["nannyml", "statsmodels"],  # it imports the latter and does not say so
}
_RUN = {
    "evidently": """
import sys, time, warnings
warnings.simplefilter("ignore")
import numpy as np, pandas as pd
from evidently import Report
from evidently.presets import DataDriftPreset
sample, windows = np.load(sys.argv[1]), np.load(sys.argv[2])
reference = pd.DataFrame({"x": sample})
begun, hits = time.perf_counter(), 0
for window in windows:
    done = Report([DataDriftPreset()]).run(pd.DataFrame({"x": window}), reference).dict()
    hits += next(one["value"]["count"] for one in done["metrics"] if "DriftedColumnsCount" in str(one)) > 0
print(hits / len(windows), (time.perf_counter() - begun) / len(windows))
""",
    "nannyml": """
import sys, time, warnings, logging
warnings.simplefilter("ignore")
logging.disable(logging.CRITICAL)
import numpy as np, pandas as pd, nannyml
sample, windows = np.load(sys.argv[1]), np.load(sys.argv[2])
begun = time.perf_counter()
calculator = nannyml.UnivariateDriftCalculator(column_names=["x"], chunk_size=len(sample) // 10)
calculator.fit(pd.DataFrame({"x": sample}))
found = calculator.calculate(pd.DataFrame({"x": windows.reshape(-1)})).to_df()
alert = [name for name in found.columns if name[-1] == "alert"]
print(float(found[alert].any(axis=1).mean()), (time.perf_counter() - begun) / len(windows))
""",
}


def told_by_peers() -> None:
    """Print the share of windows without drift that each peer calls drift, and the seconds that one takes."""
    for peer in _PACKAGES:
        python = _environment(peer)
        print(f"\n{peer}, as it comes: share of windows without drift that it calls drift; seconds a window")
        for stream in STREAMS:
            with tempfile.TemporaryDirectory() as folder:
                files = [Path(folder) / "sample.npy", Path(folder) / "windows.npy"]
                np.save(files[0], stream.rows(5000, seed=1))
                np.save(files[1], stream.rows(WINDOWS * ROWS, seed=3).reshape(WINDOWS, ROWS))
                done = subprocess.run([python, "-c", _RUN[peer], *files], capture_output=True, text=True, check=False)
            if done.returncode:
                print(f"{stream.name:22} failed: {done.stderr.strip().splitlines()[-1][:200]}")
                continue
            share, seconds = map(float, done.stdout.split()[-2:])
            print(f"{stream.name:22} {share:6.1%} {seconds:8.3f} s", flush=True)


def _environment(peer: str) -> Path:
    """Return the Python of a peer's environment, made once."""
    folder = Path(os.environ.get("BENCH_PEERS_DIR") or Path(tempfile.gettempdir()) / "bench-peers") / peer
    python = folder / "bin" / "python"
    if not (folder / "made").exists():
        print(f"installing {peer} ...", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *_PACKAGES[peer]], check=True)
        (folder / "made").touch()
    return python
