"""One onnxruntime model: a graph loaded on this processor, arrays in, arrays out."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import onnxruntime

from appliance.arrays import Array
from appliance.errors import InvalidInput, NotReady, TooLarge
from appliance.inference import overdue

_DTYPES = {
    "tensor(bool)": "bool", "tensor(string)": "string", "tensor(float16)": "float16", "tensor(float)": "float32",
    "tensor(double)": "float64", "tensor(int8)": "int8", "tensor(int16)": "int16", "tensor(int32)": "int32",
    "tensor(int64)": "int64", "tensor(uint8)": "uint8", "tensor(uint16)": "uint16", "tensor(uint32)": "uint32",
    "tensor(uint64)": "uint64",
}  # fmt: skip

INEXACT_OPTIMIZERS = ("NoopElimination",)
"""onnxruntime's that change answers: this one takes a float64 factor that rounds to 1 in float32 for 1."""


class Session:
    """An ONNX graph ready to run on the CPU.

    `inputs` and `outputs` are {tensor name: type name as in the manifest}. Loading raises NotReady when onnxruntime
    refuses the graph.
    """

    def __init__(self, model: bytes | Path, *, threads: int = 1, run_seconds: float = 0.0) -> None:
        """`run_seconds` ends a run that takes longer; 0 sets no limit."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 4  # what goes wrong is raised; warnings on stderr would break JSON logs
        # The arena keeps what the largest request ever took; a device has other programs to feed.
        options.enable_cpu_mem_arena = False
        # Idle threads that spin cost a core and buy microseconds.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.add_session_config_entry("session.inter_op.allow_spinning", "0")
        # Else onnxruntime takes a model for one of its own format by its fifth to eighth byte.
        options.add_session_config_entry("session.load_model_format", "ONNX")
        try:
            self._session = onnxruntime.InferenceSession(
                model if isinstance(model, bytes) else str(model),
                options,
                providers=["CPUExecutionProvider"],
                disabled_optimizers=INEXACT_OPTIMIZERS,
            )
        except Exception as error:  # onnxruntime's own exceptions share no base but RuntimeError and Exception
            raise NotReady("load the ONNX graph", _first_line(error), "convert the model again") from error
        # onnxruntime's own session below its Python wrapper, whose checks repeat the schema's and cost a small graph a
        # third of its run; the same call on the wrapper where a release has no such attribute.
        self._native = getattr(self._session, "_sess", self._session)
        self.inputs = {tensor.name: _DTYPES.get(tensor.type, tensor.type) for tensor in self._session.get_inputs()}
        self.outputs = {tensor.name: _DTYPES.get(tensor.type, tensor.type) for tensor in self._session.get_outputs()}
        self._names = list(self.outputs)
        self._run_seconds = run_seconds

    def run(self, feeds: Mapping[str, Array], outputs: Sequence[str] | None = None) -> list[Array]:
        """Return the named outputs (all by default, in the graph's order), each of shape [rows, ...].

        `feeds` holds every input by name, in the dtype and shape that the graph declares; strings as dtype object.
        Raises InvalidInput when onnxruntime refuses the feeds, TooLarge when the run was ended at its time limit.
        """
        run = overdue.take(self._run_seconds) if self._run_seconds else None
        try:
            answers: list[Array] = self._native.run(outputs or self._names, feeds, run[1] if run else None)
        except Exception as error:  # onnxruntime's own exceptions share no base but RuntimeError and Exception
            raise self._refusal(error, run is None or overdue.give_back(run)) from error
        if run:
            overdue.give_back(run)
        return answers

    def _refusal(self, error: Exception, in_time: bool) -> InvalidInput:
        """Return what to raise for a run that failed."""
        if in_time:
            return InvalidInput("run the model", _first_line(error), "compare the rows with the model's inputs")
        found = f"it took more than {self._run_seconds:g} seconds ([models] run_seconds)"
        return TooLarge("run the model", found, "send fewer rows at once")


def _first_line(error: BaseException) -> str:
    """Return the first line of an onnxruntime message: the rest is its own source position."""
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
