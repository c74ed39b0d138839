//! Crash stories: processes are killed or stopped at named points (`broker_runtime::crash_points`), and calls to AWS fail at
//! named places; nothing is lost and nothing happens twice.
//!
//! | file | between |
//! |---|---|
//! | `worker_dies` | any two effects of a worker |
//! | `waiting_dies` | any two effects around a request that waits |
//! | `reservations_die` | any two effects around what is put aside |
//! | `worker_pauses` | a decision and its write, for longer than the visibility timeout |
//! | `api_dies` | any two effects of an API |
//! | `dead_letters` | any two effects of a drainer and of a replay |
//! | `lost_answers` | an effect at AWS and its response |
//! | `passing_errors` | what AWS says for a while, and what it says for ever |
//! | `outages` | a service that is down, and up again |
//! | `silence` | AWS that never answers, and processes that are alive all the same |
//! | `jobs_die` | any two effects of a job |
//! | `reshards` | any two writes of `pool reshard` |
//! | `restores` | any two writes of `pool reconcile` and of `pool adopt` |

mod api_dies;
mod dead_letters;
mod jobs_die;
mod lost_answers;
mod outages;
mod passing_errors;
mod reservations_die;
mod reshards;
mod restores;
mod silence;
mod waiting_dies;
mod worker_dies;
mod worker_pauses;

use broker_runtime::crash_points::Point;
use broker_tests::{Answer, Broker, Call, Setup};
use tokio::task::JoinHandle;

/// The point at which a process ends or stops, as its environment names it.
const CRASH_AT: &str = broker_runtime::config::CRASH_SETTING;

/// One API, no worker yet, and messages that come back soon from a worker that is gone.
fn setup() -> Setup {
    Setup::new().apis(1).workers(0).pool(10).var("BROKER_VISIBILITY_S", "2")
}

/// Makes a call that is not answered yet.
async fn asked(broker: &Broker, call: Call) -> JoinHandle<Answer> {
    let call = tokio::spawn(call.send());
    broker.queues().holds_requests(1).await;
    call
}

/// The answer to a call made before.
async fn answer(call: JoinHandle<Answer>) -> Answer {
    call.await.expect("an answer")
}

/// Starts a worker that dies at `point`.
async fn doomed(broker: &mut Broker, point: Point) {
    broker.launch_worker(&[(CRASH_AT, &format!("{}=kill", point.as_str()))]).await;
}

/// Waits for the death of the only worker.
async fn dies(broker: &mut Broker) {
    let status = broker.worker_mut(0).process().ended().await;
    assert!(!status.success(), "{status}");
    broker.kill_worker(0);
}
