//! Scaling: `broker up --workers A..B` follows the backlog, and nothing is lost on the way out or in.

use std::time::Duration;

use broker_tests::cli::Stats;
use broker_tests::{Answer, Api, Up, process, together, wait_for_condition};
use nix::sys::signal::{Signal, kill};

use crate::{count, distinct_sandboxes};

/// Students that allocate at the same time, and the number of repeats of each.
const STUDENTS: usize = 500;
const LABS: usize = 10;

/// The responses of a student, and their durations.
async fn student(api: Api, student: usize) -> Vec<(Answer, Duration)> {
    let mut answers = Vec::with_capacity(LABS);
    for lab in 0..LABS {
        let asked = tokio::time::Instant::now();
        let track = format!("student-{student}-lab-{lab}");
        let mut answer = api.allocate(&track).wait(50).send().await;
        // A busy machine, with AWS as it is: the same call again, as clients do.
        while answer.status == 202 {
            answer = api.allocate(&track).wait(50).send().await;
        }
        answers.push((answer, asked.elapsed()));
    }
    answers
}

#[tokio::test]
async fn a_burst_of_five_thousand_scales_workers_out_and_silence_in_and_nothing_is_lost() {
    let up = Up::start(&[
        "--workers",
        "1..4",
        "--backlog-per-worker",
        "50",
        "--scale-in-after-s",
        "2",
        "--pool",
        "5000",
    ])
    .await;
    has_workers(&up, 1).await;

    let students: Vec<_> = (0..STUDENTS).map(|n| student(up.api().clone(), n)).collect();
    let burst = tokio::spawn(together(students));
    has_workers(&up, 4).await;
    let (answers, mut seconds): (Vec<_>, Vec<_>) =
        burst.await.expect("no student panicked").into_iter().flatten().unzip();
    assert_eq!(count(&answers, 201) + count(&answers, 200), STUDENTS * LABS);
    assert_eq!(distinct_sandboxes(&answers).len(), STUDENTS * LABS);

    // The other way: no request any more, and the three that are too many drain.
    has_workers(&up, 1).await;
    up.queues().are_empty().await;
    up.environment().verify().await;
    let stats = up.environment().stats().await;
    assert_eq!(stats, Stats { total: 5_000, allocated: 5_000, ..Stats::default() });
    assert_eq!(up.logged("a worker ended badly after SIGTERM").len(), 0);

    seconds.sort();
    println!("p95 of {} answers: {:?}", seconds.len(), seconds[seconds.len() * 95 / 100]);
    for step in up.logged("workers scaled") {
        println!(
            "{} workers {} -> {}, {} visible, {} in flight",
            step["timestamp"], step["before"], step["workers"], step["visible"], step["in_flight"]
        );
    }
    up.stop().await;
}

#[tokio::test]
async fn a_worker_that_is_killed_is_replaced_and_its_requests_are_answered() {
    let up = Up::start(&["--workers", "1..2", "--pool", "40", "--visibility-s", "2"]).await;
    let before = has_workers(&up, 1).await;
    up.lists(40).await;
    let calls = (0..20).map(|n| up.api().allocate(&format!("student-{n}")).wait(50).send());
    let calls = tokio::spawn(together(calls.collect::<Vec<_>>()));
    kill(before[0], Signal::SIGKILL).expect("the worker runs");
    let answers = calls.await.expect("no call panicked");
    assert_eq!(distinct_sandboxes(&answers).len(), 20);
    assert_ne!(has_workers(&up, 1).await, before);
    up.environment().verify().await;
    up.queues().are_empty().await;
    up.stop().await;
}

#[tokio::test]
async fn workers_do_not_outlive_the_process_that_started_them() {
    let up = Up::start(&["--workers", "2..3", "--pool", "1"]).await;
    let workers = has_workers(&up, 2).await;
    up.kill();
    wait_for_condition("the workers to end", async || {
        let left: Vec<_> = workers.iter().filter(|pid| process::runs(**pid)).collect();
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?} run")) }
    })
    .await;
}

/// Waits until so many worker processes run.
async fn has_workers(up: &Up, wanted: usize) -> Vec<nix::unistd::Pid> {
    wait_for_condition(&format!("{wanted} workers"), async || {
        let workers = up.workers();
        if workers.len() == wanted { Ok(workers) } else { Err(workers) }
    })
    .await
}
