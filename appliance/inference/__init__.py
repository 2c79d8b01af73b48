"""Runs ONNX graphs with onnxruntime, quietly.

onnxruntime reads its telemetry switches when it is imported, so they are set here, before any module of this
package imports it. The switch is known under two names; both are set.
"""

import os

TELEMETRY_SWITCHES = ("ORT_DISABLE_TELEMETRY", "ORT_TELEMETRY_DISABLED")
for _switch in TELEMETRY_SWITCHES:
    os.environ[_switch] = "1"
