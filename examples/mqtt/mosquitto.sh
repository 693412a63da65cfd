#!/bin/sh
# Runs mosquitto on $PORT. At SIGTERM it ends its connections, and then itself.
set -eu
exec mosquitto -c /dev/stdin <<END
listener ${PORT:-1883} 0.0.0.0
allow_anonymous true
persistence false
END
