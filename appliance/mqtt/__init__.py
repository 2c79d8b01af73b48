"""The MQTT listener: sensor messages in, predictions out, nothing lost."""
