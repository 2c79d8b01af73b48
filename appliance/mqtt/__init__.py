"""The MQTT door: sensor messages in, predictions out, nothing lost."""
