#!/bin/sh
# The command means the same configuration and state as the service.
[ -n "${APPLIANCE_CONFIG-}" ] || [ ! -r /etc/appliance/appliance.toml ] || export APPLIANCE_CONFIG=/etc/appliance/appliance.toml
exec /usr/lib/appliance/program/appliance "$@"
