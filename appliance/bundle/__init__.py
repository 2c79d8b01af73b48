"""The bundle: the one file that carries a model from the build machine to the device."""
