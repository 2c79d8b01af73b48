"""The last report of the MQTT listener, which only one process has, shared with all processes."""

from pathlib import Path

import msgspec

from appliance.monitoring import shared_files
from appliance.mqtt_state import MqttState

_FILE = "mqtt.state"


class MqttBoard:
    """The last report. Safe in any thread."""

    def __init__(self, folder: Path | None = None) -> None:
        """`folder` is shared by the processes, None for one alone."""
        self._folder = folder
        self._state: MqttState | None = None

    def write(self, state: MqttState) -> None:
        """Take a report."""
        self._state = state
        shared_files.write(self._folder, _FILE, msgspec.json.encode(state))

    def read(self) -> MqttState | None:
        """Return the last report, in whichever process it was made; None when there is none."""
        if self._folder is None:
            return self._state
        try:
            return msgspec.json.decode((self._folder / _FILE).read_bytes(), type=MqttState)
        except (FileNotFoundError, msgspec.MsgspecError):
            return self._state
