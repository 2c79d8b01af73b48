"""The failures a user can meet; knows neither HTTP statuses nor exit codes.

Each carries what was tried, what was found and what to do next:

    ApplianceError                something was tried and failed
    +-- Misuse                    the request, option or file is invalid
    |   +-- NoDefaultModel        no model was named, and several are active
    |   +-- ConfigError           a setting is unknown, missing or out of its range
    |   +-- InvalidInput          rows or tensors that the model cannot take
    |   |   +-- TooLarge          a body, a row count or a nesting beyond its limit
    +-- Refused                   a promise would be broken, so nothing was done
    |   +-- BundleRefused         a bundle is damaged, unknown, incomplete or unsafe
    |   +-- BackupRefused         a backup is damaged, not whole, unsafe or of a newer format
    |   +-- ConversionRefused     a trained model cannot be converted rightly
    |   |   +-- ParityFailed      the ONNX graph does not answer as the original does
    |   +-- SelfTestFailed        a version does not answer on this processor as it should
    |   +-- ActiveVersion         a version that serves, or an experiment's, cannot be taken away
    |   +-- ExperimentRuns          another change would end or upset the experiment that runs
    |   +-- InputsChanged           a version takes other rows, or gives other answers, than the active one
    +-- NotFound                  no such model, version or file
    +-- NotReady                  it exists, but cannot answer now
    |   +-- Overloaded            more requests wait than may
    |   +-- NotLogged             it must be in the prediction log, which takes nothing now
    +-- NotAllowed                the caller has no token for this
    |   +-- Forbidden             the token is good, but its scope is too small
    +-- StoreError                the state folder cannot be read or written
    +-- Unfinished                a file is not scored to its end; what was done is kept
    |   +-- BadRows               it holds rows that the model does not take
"""


class ApplianceError(Exception):
    """Something was tried and failed; `tried`, `found` and `next_step` are whole phrases for a person."""

    def __init__(self, tried: str, found: str, next_step: str = "") -> None:
        super().__init__(tried, found, next_step)
        self.tried = tried
        self.found = found
        self.next_step = next_step

    def __str__(self) -> str:
        """Return the three parts as one line: `tried: found; next step`."""
        return f"{self.tried}: {self.found}" + (f"; {self.next_step}" if self.next_step else "")


class Misuse(ApplianceError):
    """The request is invalid: an argument, option or file that nothing can be done with."""


class NoDefaultModel(Misuse):
    """No model was named, and several are active."""


class ConfigError(Misuse):
    """A setting is unknown, missing or out of its range."""


class InvalidInput(Misuse):
    """Rows or tensors that the model cannot take.

    Where one column is at fault, `column` names it, and `reason` is one of REFUSAL_REASONS; else both are "".
    """

    def __init__(self, tried: str, found: str, next_step: str = "", *, column: str = "", reason: str = "") -> None:
        super().__init__(tried, found, next_step)
        self.column = column
        self.reason = reason


REFUSAL_REASONS = ("missing", "unseen", "infinite", "type", "absent")
"""What may be wrong with a column: null or NaN, a category that training never saw, infinity, a value of another type,
and a column that is not sent at all."""


class TooLarge(InvalidInput):
    """A body, a row count or a nesting beyond its limit."""


class Refused(ApplianceError):
    """A promise would be broken, so nothing was done."""


class BundleRefused(Refused):
    """A bundle is damaged, unknown, incomplete or unsafe."""


class BackupRefused(Refused):
    """A backup is damaged, not whole, unsafe or of a newer format."""


class ConversionRefused(Refused):
    """A trained model cannot be converted rightly."""


class ParityFailed(ConversionRefused):
    """The ONNX graph does not answer as the original model does."""


class SelfTestFailed(Refused):
    """An installed version does not answer on this processor as the original model did."""


class ActiveVersion(Refused):
    """A version that serves, or that is part of an experiment, cannot be taken away."""


class ExperimentRuns(Refused):
    """Another change would end or upset the experiment that runs on a model."""


class InputsChanged(Refused):
    """A version takes other rows, or gives other answers, than the active one; nobody said that this is meant."""


class NotFound(ApplianceError):
    """No such model, version or file."""


def unknown_model(name: str, installed: list[str]) -> NotFound:
    """Return the error for a model that is not installed; Triton's clients look for its first words."""
    known = ", ".join(sorted(installed)) or "none"
    return NotFound(f"Request for unknown model: '{name}'", "it is not installed", f"installed models: {known}")


class NotReady(ApplianceError):
    """It exists, but cannot answer now."""


class Overloaded(NotReady):
    """More requests wait than may."""


class NotLogged(NotReady):
    """What must be in the prediction log could not be written there."""


class NotAllowed(ApplianceError):
    """The caller has no token for this, or one of a lesser scope."""


class Forbidden(NotAllowed):
    """The token is good, but its scope is too small."""


class StoreError(ApplianceError):
    """The state folder cannot be read or written."""


class Unfinished(ApplianceError):
    """A file is not scored to its end; what was done is kept, and the same command goes on there."""


class BadRows(Unfinished):
    """A file holds rows that the model does not take."""
