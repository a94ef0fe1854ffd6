#!/bin/sh
# Asks a prediction server for some entities in one call; grpcurl learns the contract from it.
#
#   examples/grpcurl/predict.sh 127.0.0.1:50051 00004 00010
#
# ESPALIER_TOKEN is sent as the caller's token when it is set.
set -eu
[ $# -ge 2 ] || { echo "usage: predict.sh ADDRESS ENTITY..." >&2; exit 2; }
address="$1"
shift

# -plaintext is for a server without TLS; -cacert FILE for one with authorities of its own.
call() {
  grpcurl -plaintext -max-time 10 \
    ${ESPALIER_TOKEN:+-H "authorization: Bearer $ESPALIER_TOKEN"} "$@"
}

service=espalier.prediction.v1.PredictionService
call "$address" describe "$service"
entities="$(printf '"%s", ' "$@")"
call -d "{\"entity_ids\": [${entities%, }]}" "$address" "$service/BatchPredict"
