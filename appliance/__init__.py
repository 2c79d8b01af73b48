"""The device's half: installs bundles and answers predictions from them with onnxruntime."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("edge-inference-appliance")
except PackageNotFoundError:  # run from a bare source tree
    __version__ = "0.0.0"
