//! The stories: what a user, an operator or a fault does, against 2 `broker-api` and 3 `broker-worker` processes on an
//! endpoint process of their own. Each ends with `broker pool verify` and empty queues ([`broker_tests::finish`]).
//!
//! | file | story |
//! |---|---|
//! | `first_allocation` | a track gets a sandbox |
//! | `repeats` | it asks again, also 50 times at once |
//! | `limits` | how much, from where, from which page |
//! | `malformed` | bytes that no client should send |
//! | `many_at_once` | 200 tracks on 200 sandboxes, 100 on 50 |
//! | `give_and_take` | allocate, give back, allocate |
//! | `giving_back` | who may give back what |
//! | `name_prefix` | only sandboxes with a certain name |
//! | `keys` | idempotency keys |
//! | `empty_pool` | nothing left |
//! | `swept` | a reply queue that is gone |
//! | `the_wait_runs_out` | the reply that does not come in time |
//! | `asynchronous` | `Prefer: respond-async`: queued, polled, cancelled |
//! | `bad_input` | refused before anything is enqueued |
//! | `errors` | what every error and every answer looks like |
//! | `redelivery` | a message that comes twice |
//! | `poison` | a message that nobody can read |
//! | `dead_letters` | what could not be processed: seen, understood, replayed, discarded |
//! | `clocks` | a machine whose clock is off |
//! | `crashes` | processes that end under load |
//! | `replacement` | processes that are replaced under load |
//! | `versions` | a message that a newer program wrote |
//! | `crowds` | ten thousand connections that say nothing, two hundred that say it slowly |
//! | `tokens` | who may call, rotation, and that no token is ever logged |
//! | `scaling` | `broker up --workers A..B` follows the backlog |
//! | `observability` | the queries of dashboard and alerts ask for what is exposed |
//! | `logs` | one JSON line for each request |
//! | `traces` | one trace tells the life of a request |
//! | `doctor` | what `broker doctor` finds |
//! | `first_run` | what `broker up` says when something is in its way |
//! | `verify` | what `pool verify` finds |
//! | `adoption` | `pool adopt`: a table that another tool filled |
//! | `reconciliation` | `pool pause`, and a pool that was restored from a backup |
//! | `one_machine` | `broker up --data-dir`, stopped and started again |
//! | `maintenance` | the jobs: expiry, cleanup, sync, the schedule, what dead processes leave |
//! | `examples` | the scripts of `infra/examples`, as an integrator pastes them |
//! | `operator` | the `broker` command and the metrics |

mod adoption;
mod asynchronous;
mod bad_input;
mod clocks;
mod crashes;
mod crowds;
mod dead_letters;
mod doctor;
mod empty_pool;
mod environments;
mod errors;
mod examples;
mod first_allocation;
mod first_run;
mod give_and_take;
mod giving_back;
mod keys;
mod limits;
mod logs;
mod maintenance;
mod malformed;
mod many_at_once;
mod name_prefix;
mod observability;
mod one_machine;
mod operator;
mod poison;
mod reconciliation;
mod redelivery;
mod repeats;
mod replacement;
mod scaling;
mod swept;
mod the_wait_runs_out;
mod tokens;
mod traces;
mod verify;
mod versions;

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
