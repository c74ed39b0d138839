#!/bin/sh
# The calls of a lab's life, one after the other, each with the status that it is answered. For reading and pasting; for
# use, `start` and `stop` beside this file also wait and repeat. Needs a shell, curl, and a pool with two sandboxes.
#
#   BROKER_URL=http://127.0.0.1:8080 BROKER_TOKEN=... calls.sh
set -eu
cd "$(mktemp -d)"
token="Authorization: Bearer $BROKER_TOKEN"
owner="X-Instruqt-Sandbox-ID: ${INSTANCE-student-1}"
lab="X-Instruqt-Track-ID: kubernetes-101"
call() { curl --silent --output answer --dump-header headers --write-out '%{http_code}\n' "$@"; }
sandbox() { sed 's/.*"sandbox_id":"\([^"]*\)".*/\1/' answer; }
header() { tr -d '\r' <headers | sed -n "s/^$1: //p"; }

# A sandbox for this instance: 201, and the same again, as after a reload of the page: 200. No key is needed: it is the
# owner's id.
call -X POST "$BROKER_URL/v1/allocate" -H "$token" -H "$owner" -H "$lab"
call -X POST "$BROKER_URL/v1/allocate" -H "$token" -H "$owner" -H "$lab"
first=$(sandbox)

# A second one for the same instance has a key of its own; the call does not wait for it: 202, and Location tells where to
# ask, Retry-After when.
call -X POST "$BROKER_URL/v1/allocate" -H "$token" -H "$owner" -H "Idempotency-Key: second" -H "Prefer: respond-async"
location=$(header location)
while sleep "$(header retry-after)" && call "$BROKER_URL$location" -H "$token" -H "$owner" >status && grep -q '"status":"queued"' answer; do :; done
cat status
second=$(sandbox)

# The same key for another request: 422, which says so.
call -X POST "$BROKER_URL/v1/allocate" -H "$token" -H "$owner" -H "Idempotency-Key: second" -d '{"lab_duration_hours": 2}'

# Nothing that fits is free: 409 at once, with Retry-After.
call -X POST "$BROKER_URL/v1/allocate" -H "$token" -H "X-Instruqt-Sandbox-ID: somebody-else" -H "X-Sandbox-Name-Prefix: no-such-name"

# Another owner's sandbox cannot be given back: 403. One's own can, as often as one likes: 200, 200.
call -X POST "$BROKER_URL/v1/sandboxes/$first/mark-for-deletion" -H "$token" -H "X-Instruqt-Sandbox-ID: somebody-else"
call -X POST "$BROKER_URL/v1/sandboxes/$first/mark-for-deletion" -H "$token" -H "$owner"
call -X POST "$BROKER_URL/v1/sandboxes/$first/mark-for-deletion" -H "$token" -H "$owner"
call -X POST "$BROKER_URL/v1/sandboxes/$second/mark-for-deletion" -H "$token" -H "$owner"
