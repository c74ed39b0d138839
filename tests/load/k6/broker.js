// One student's view of the broker, and what is counted of it. The profiles beside this file use it.
//
// The runner (`broker-load`) sets: BROKER_URLS (comma separated), BROKER_TOKEN, BROKER_USERS, BROKER_ROUNDS,
// BROKER_DURATION (empty: a fixed number of rounds), BROKER_STAGES (JSON, k6's own form; empty: always as many users),
// BROKER_THINK_TIME_S, BROKER_SUMMARY (the file for the result). Whoever has begun a round ends it.

import http from 'k6/http';
import { sleep } from 'k6';
import { Counter, Rate, Trend } from 'k6/metrics';

const urls = __ENV.BROKER_URLS.split(',');
const token = __ENV.BROKER_TOKEN;
const thinkTime = Number(__ENV.BROKER_THINK_TIME_S || 0);

const allocateAnswers = new Counter('allocate_answers'); // of all allocate calls, whatever the status
const allocationSuccess = new Rate('allocation_success'); // of all allocate calls: 200 or 201
const poolExhausted = new Counter('pool_exhausted'); // 409 NO_SANDBOXES_AVAILABLE
const idempotencyHit = new Counter('idempotency_hit'); // 200: the same sandbox again
const allocationLatency = new Trend('allocation_latency', true); // of allocate calls, milliseconds
const surprises = new Counter('surprises'); // an answer that the student's story does not have

// One counter per status, since the summary shows no others: 0 is "no answer".
const statuses = [0, 200, 201, 202, 400, 401, 403, 404, 409, 413, 422, 429, 431, 500, 502, 503, 504];
const answers = Object.fromEntries(statuses.map((status) => [status, new Counter(`answers_${status}`)]));

function users() {
  const vus = Number(__ENV.BROKER_USERS);
  const duration = __ENV.BROKER_DURATION;
  if (duration) return { executor: 'constant-vus', vus, duration, gracefulStop: '60s' };
  const stages = __ENV.BROKER_STAGES && JSON.parse(__ENV.BROKER_STAGES);
  if (stages) return { executor: 'ramping-vus', stages, gracefulRampDown: '60s', gracefulStop: '60s' };
  return { executor: 'per-vu-iterations', vus, iterations: Number(__ENV.BROKER_ROUNDS), maxDuration: '30m' };
}

export function options() {
  return {
    scenarios: { users: users() },
    summaryTrendStats: ['avg', 'med', 'p(95)', 'p(99)', 'max'],
    systemTags: ['status'],
  };
}

export function summary(data) {
  return { [__ENV.BROKER_SUMMARY]: JSON.stringify(data.metrics) };
}

// The APIs in turn, as a load balancer would choose.
let turn = __VU;
function url(path) {
  turn += 1;
  return `${urls[turn % urls.length]}${path}`;
}

function count(response, expected) {
  (answers[response.status] || answers[0]).add(1);
  if (!expected.includes(response.status)) {
    surprises.add(1);
    console.log(JSON.stringify({ surprise: response.status, expected, body: String(response.body).slice(0, 500) }));
  }
  return response;
}

function headers(track, lab) {
  const all = { Authorization: `Bearer ${token}`, 'X-Instruqt-Sandbox-ID': track };
  return { headers: lab ? { ...all, 'X-Instruqt-Track-ID': lab } : all };
}

// Asks for a sandbox; its id, or null when the pool is exhausted.
export function allocate(track, lab, expected = [201, 409]) {
  const response = count(http.post(url('/v1/allocate'), null, headers(track, lab)), expected);
  allocateAnswers.add(1);
  allocationLatency.add(response.timings.duration);
  allocationSuccess.add(response.status === 200 || response.status === 201);
  if (response.status === 409) poolExhausted.add(1);
  if (response.status === 200) idempotencyHit.add(1);
  if (response.status !== 200 && response.status !== 201) return null;
  const sandbox = response.json('sandbox_id');
  console.log(JSON.stringify({ track, lab: lab || null, sandbox }));
  return sandbox;
}

export function look(track, sandbox) {
  count(http.get(url(`/v1/sandboxes/${sandbox}`), headers(track)), [200]);
}

export function giveBack(track, sandbox) {
  count(http.post(url(`/v1/sandboxes/${sandbox}/mark-for-deletion`), null, headers(track)), [200]);
}

export function think() {
  if (thinkTime > 0) sleep(thinkTime * (0.5 + Math.random()));
}
