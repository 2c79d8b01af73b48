"""Runs a conversion in a child process, which is ended when it takes too long."""

import multiprocessing
from collections.abc import Callable
from multiprocessing.connection import Connection

from appliance.errors import ConversionRefused

TIME_LIMIT = 120.0  # seconds; a usual conversion takes a few


class ConverterError(Exception):
    """What the conversion raised, as text: the exception itself may not cross the process border.

    `next_step` is what to do instead, where a converter of ours refused and said it, else empty. `step` is the path
    of the estimator at fault, where the work raised a StepError.
    """

    def __init__(self, found: str, next_step: str, step: str = "") -> None:
        super().__init__(found)
        self.next_step, self.step = next_step, step


class StepError(Exception):
    """Names the estimator that was being converted, by its path in the model; its cause is what was raised."""

    def __init__(self, step: str) -> None:
        super().__init__(step)
        self.step = step


def run(work: Callable[[], bytes], time_limit: float = TIME_LIMIT) -> bytes:
    """Return `work()`, run in a forked child for at most `time_limit` seconds.

    The child shares the parent's memory: no model is copied, and converters registered by the caller are there.
    Where the system cannot fork the work runs here, without a limit. Raises ConverterError with what `work` raised,
    and ConversionRefused when it does not end in time or its process dies.
    """
    if "fork" not in multiprocessing.get_all_start_methods():
        return _outcome(*_attempt(work))
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=_child, args=(work, sender), daemon=True)
    child.start()
    sender.close()
    try:
        if not receiver.poll(time_limit):
            found = f"it did not end within {time_limit:g} s"
            raise ConversionRefused("convert the model to ONNX", found, "simplify the model, or train it without gaps")
        return _outcome(*receiver.recv())
    except EOFError as error:
        child.join()
        found = f"the converter's process died (exit code {child.exitcode})"
        raise ConversionRefused(
            "convert the model to ONNX", found, "give it more memory, or simplify the model"
        ) from error
    finally:
        child.kill()
        child.join()
        receiver.close()


def _child(work: Callable[[], bytes], sender: Connection) -> None:
    sender.send(_attempt(work))
    sender.close()


def _attempt(work: Callable[[], bytes]) -> tuple[bytes, str, str, str]:
    """Return the result of `work` and empty texts; or no result, the error's text, what to do instead, and the step."""
    try:
        return work(), "", "", ""
    except StepError as error:
        return b"", *_texts(error.__cause__ or error), error.step
    except Exception as error:  # noqa: BLE001 - converters are other people's code and raise every kind there is
        return b"", *_texts(error), ""


def _texts(error: BaseException) -> tuple[str, str]:
    if isinstance(error, ConversionRefused):
        return error.found, error.next_step
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}", ""


def _outcome(content: bytes, error: str, next_step: str, step: str) -> bytes:
    if error:
        raise ConverterError(error, next_step, step)
    return content
