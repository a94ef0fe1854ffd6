#!/bin/sh
# Asks a prediction server over HTTP for one entity, and then for its model.
#
#   examples/curl/predict.sh http://127.0.0.1:8000 user_id 00004
#
# ESPALIER_TOKEN is sent as the caller's token when it is set.
set -eu
[ $# -eq 3 ] || { echo "usage: predict.sh URL JOIN_KEY ENTITY" >&2; exit 2; }

# A refusal is JSON too, so its body is shown before --fail-with-body makes the exit code 22.
ask() {
  curl --silent --show-error --fail-with-body --max-time 10 \
    ${ESPALIER_TOKEN:+--header "Authorization: Bearer $ESPALIER_TOKEN"} "$@"
  echo
}

ask --header 'Content-Type: application/json' --data "{\"$2\": \"$3\"}" "$1/predict"
ask "$1/model"
