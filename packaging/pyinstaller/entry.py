"""The first module of the binary: what the command `appliance` runs."""

from appliance.cli import main

main()
