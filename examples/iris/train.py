"""Trains the iris model as a data scientist would, and leaves a joblib pickle and a sample of the data."""

import sys
from pathlib import Path

import joblib
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split


def main(folder: Path) -> None:
    """Write model.joblib and sample.csv (its answers in the column `species`) into `folder`."""
    iris = load_iris(as_frame=True)
    features = iris.data
    species = iris.target.map(dict(enumerate(iris.target_names)))
    x_train, x_test, y_train, y_test = train_test_split(features, species, random_state=0, stratify=species)
    # A plain array, so that the device takes rows as lists of four numbers.
    model = LogisticRegression(max_iter=1000).fit(x_train.to_numpy(), y_train)
    folder.mkdir(parents=True, exist_ok=True)
    joblib.dump(model, folder / "model.joblib")
    x_train.assign(species=y_train).to_csv(folder / "sample.csv", index=False)
    print(f"accuracy on {len(x_test)} rows never seen: {model.score(x_test.to_numpy(), y_test):.3f}")
    print(f"wrote {folder / 'model.joblib'} and {folder / 'sample.csv'}")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
