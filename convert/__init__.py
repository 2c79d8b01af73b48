"""The build machine's half: carries a trained model into a bundle, with proof, or refuses.

Nothing heavy is imported before it is used, so that `appliance --help` stays quick where this package is installed.
"""

from typing import TYPE_CHECKING, Any

from appliance.errors import ConversionRefused as Refused

if TYPE_CHECKING:
    from convert.build import convert_model
    from convert.conversion import Conversion

__all__ = ["Conversion", "Refused", "convert_model"]


def __getattr__(name: str) -> Any:
    """Import the recipe on first use (PEP 562)."""
    if name == "Conversion":
        from convert.conversion import Conversion

        return Conversion
    if name == "convert_model":
        from convert.build import convert_model

        return convert_model
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
