"""The device's folder of installed versions, which of them is active, and what was done when."""
