//! End-to-end stories of users, operators and faults, against `broker-api` and `broker-worker` processes on an endpoint
//! process. Each ends with `broker pool verify` and empty queues ([`broker_tests::finish`]).
//!
//! | file | story |
//! |---|---|
//! | `first_allocation` | a track gets a sandbox |
//! | `repeats` | a track repeats its request, also 50 times at once |
//! | `limits` | body sizes, rate, client address, CORS |
//! | `malformed` | bytes that no client should send |
//! | `many_at_once` | 200 tracks on 200 sandboxes, 100 on 50 |
//! | `allocate_and_return` | allocate, return, allocate |
//! | `returns` | who may return which sandbox |
//! | `name_prefix` | only sandboxes with a certain name |
//! | `keys` | idempotency keys |
//! | `empty_pool` | no sandbox is left |
//! | `reply_queue_lost` | a reply queue that is gone |
//! | `wait_timeout` | a reply that does not come in time |
//! | `waiting` | requests that found nothing wait in lines |
//! | `asynchronous` | `Prefer: respond-async`: queued, polled, cancelled |
//! | `bad_input` | refused before anything is enqueued |
//! | `errors` | form of errors and responses |
//! | `redelivery` | a message that comes twice |
//! | `poison` | a message that no worker can decode |
//! | `data_settings` | the settings that the table's data depends on; where a sandbox stands in the index |
//! | `dead_letters` | listed, shown, replayed, discarded |
//! | `clocks` | a machine whose clock is off |
//! | `console` | what the console asks: overview, stories, jobs, audit |
//! | `overview` | what is wrong with the provider, its list and refill; what an overview costs |
//! | `crashes` | processes that end under load |
//! | `replacement` | processes that are replaced under load |
//! | `versions` | a message of a newer program |
//! | `connections` | ten thousand idle connections, two hundred slow ones |
//! | `tenants` | one tenant that sends thousands, and others |
//! | `tokens` | who may call, rotation, and that no token is ever logged |
//! | `scaling` | `broker up --workers A..B` follows the backlog |
//! | `observability` | the queries of dashboard and alerts match the exposed metrics |
//! | `logs` | one JSON line for each request |
//! | `traces` | one trace covers the life of a request |
//! | `hooks` | a hook is tried out; one that is asked before each deletion |
//! | `attributes` | what the provider says of a sandbox is told to its owner |
//! | `refill` | a pool that runs low asks for more |
//! | `supply` | an operator's days: schedules, a vendor that is down, what cannot be deleted |
//! | `reservations` | a class at nine, and what becomes of it |
//! | `renewal` | an owner renews its lease, or beats |
//! | `lease_command` | `broker lease`: a command with a sandbox of its own |
//! | `doctor` | the lines of `broker doctor` |
//! | `first_run` | `broker up` when something is wrong |
//! | `verify` | the findings of `pool verify` |
//! | `adoption` | `pool adopt`: a table that another tool filled |
//! | `reconciliation` | `pool pause`, and a pool that was restored from a backup |
//! | `odd_clients` | half closed, compressed, with a query where none is |
//! | `one_machine` | `broker up --data-dir`, stopped and started again |
//! | `maintenance` | the jobs: expiry, cleanup, sync, the schedule, the sweep |
//! | `examples` | the scripts of `infra/examples` |
//! | `operator` | the `broker` command and the metrics |
//! | `acts` | acts of operators that change nothing or are refused |
//! | `permissions` | what each command asks of AWS |

mod acts;
mod adoption;
mod allocate_and_return;
mod arriving;
mod asynchronous;
mod attributes;
mod bad_input;
mod clocks;
mod connections;
mod console;
mod crashes;
mod data_settings;
mod dead_letters;
mod doctor;
mod doors;
mod empty_pool;
mod environments;
mod errors;
mod examples;
mod first_allocation;
mod first_run;
mod flavours;
mod gate;
mod hooks;
mod keys;
mod last_release;
mod lease_command;
mod limits;
mod logs;
mod maintenance;
mod malformed;
mod many_at_once;
mod name_prefix;
mod observability;
mod odd_clients;
mod one_machine;
mod operator;
mod overview;
mod permissions;
mod poison;
mod policy;
mod quarantine;
mod quotas;
mod quotas_shown;
mod reconciliation;
mod redelivery;
mod refill;
mod renewal;
mod repeats;
mod replacement;
mod reply_queue_lost;
mod reservations;
mod returns;
mod scaling;
mod supply;
mod tenants;
mod tenants_operators;
mod tokens;
mod traces;
mod verify;
mod versions;
mod wait_timeout;
mod waiting;
mod waiting_answers;
mod waiting_bounds;
mod waiting_operators;
mod waiting_upgrade;

use std::collections::BTreeSet;

use broker_tests::Answer;

/// The sandboxes of these answers, of which no two may be the same.
#[track_caller]
fn distinct_sandboxes<'a>(answers: impl IntoIterator<Item = &'a Answer>) -> BTreeSet<String> {
    let mut sandboxes = BTreeSet::new();
    for answer in answers {
        let fresh = sandboxes.insert(answer.sandbox_id().to_owned());
        assert!(fresh, "{} was handed out twice", answer.sandbox_id());
    }
    sandboxes
}

/// How many of these answers have this status.
fn count(answers: &[Answer], status: u16) -> usize {
    answers.iter().filter(|answer| answer.status == status).count()
}
