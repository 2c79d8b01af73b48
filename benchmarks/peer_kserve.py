"""A KServe ModelServer, run by the peer's own Python: `python peer_kserve.py FOLDER PORT WORKERS [KServe's options]`.

Serves every NAME.joblib of FOLDER with scikit-learn, as KServe's sklearnserver does (python/sklearnserver in its
repository, which PyPI does not carry), and every NAME.onnx with onnxruntime.
"""

import sys
from pathlib import Path

import joblib
import onnxruntime
from kserve import Model, ModelServer
from kserve.utils.utils import get_predict_input, get_predict_response


class SklearnModel(Model):
    def __init__(self, file: Path) -> None:
        super().__init__(file.stem)
        self._model = joblib.load(file)
        self.ready = True

    def predict(self, payload, headers=None):
        return get_predict_response(payload, self._model.predict(get_predict_input(payload)), self.name)


class OnnxModel(Model):
    def __init__(self, file: Path) -> None:
        super().__init__(file.stem)
        self._file = file
        self._session = None
        self.ready = True

    def predict(self, payload, headers=None):
        if self._session is None:  # KServe pickles the models on the way to its workers; a session cannot be pickled
            self._session = _session(self._file)
        tensor = self._session.get_inputs()[0]
        rows = get_predict_input(payload).astype("float64" if "double" in tensor.type else "float32")
        return get_predict_response(payload, self._session.run(None, {tensor.name: rows})[0], self.name)


def _session(file: Path) -> onnxruntime.InferenceSession:
    """Return a session of one thread: more make single rows slower."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    models = [SklearnModel(file) for file in sorted(folder.glob("*.joblib"))]
    models += [OnnxModel(file) for file in sorted(folder.glob("*.onnx"))]
    ModelServer(http_port=int(sys.argv[2]), workers=int(sys.argv[3]), enable_grpc=False).start(models)
