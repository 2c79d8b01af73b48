"""Trains the benchmark's two models with the scikit-learn that runs this file: `python train.py FOLDER`.

It stands alone, since every peer trains with its own scikit-learn in its own environment. Writes iris.joblib,
forest.joblib and, beside each, the table it was trained on as CSV (last column `target`).
"""

import csv
import sys
from pathlib import Path

import joblib
from sklearn.datasets import load_breast_cancer, load_iris
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression


def main(folder: Path) -> None:
    _fit(folder, "iris", LogisticRegression(max_iter=1000), load_iris())
    _fit(folder, "forest", RandomForestClassifier(n_estimators=100, random_state=0), load_breast_cancer())


def _fit(folder: Path, name: str, model, table) -> None:
    joblib.dump(model.fit(table.data, table.target), folder / f"{name}.joblib")
    with (folder / f"{name}.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow([*table.feature_names, "target"])
        writer.writerows([*row, label] for row, label in zip(table.data.tolist(), table.target.tolist(), strict=True))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
