//! Arrivals for those who wait: a thousand requests stand in line, a thousand sandboxes arrive.

use std::sync::Arc;

use broker_tests::{Broker, Provider, wait_for_condition};
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::beside::end;
use crate::figure::Figure;
use crate::figure::Target::AtMost;
use crate::plan::Violation;
use crate::shape::Shape;

const WAITING: usize = 1_000;

/// From the beginning of the sync that brings them until each caller has its answer.
pub(crate) async fn served(runs: usize) -> Result<Vec<Figure>, Violation> {
    let [all, p99] = [
        ["until the last answer, s", "the same in AWS's shape, s"],
        ["p99 from the sync's beginning, ms", "the same in AWS's shape, ms"],
    ];
    let mut figures = Vec::new();
    for (at, shape) in Shape::BOTH.into_iter().enumerate() {
        let (mut last, mut late) = (Vec::new(), Vec::new());
        for _ in 0..runs {
            let mut took = answers(shape).await?;
            took.sort_by(f64::total_cmp);
            let of = |at: usize| took.get(at).copied().unwrap_or(f64::NAN);
            println!(
                "  {} served: median {:.2} s, last {:.2} s",
                took.len(),
                of(WAITING / 2),
                of(WAITING - 1)
            );
            last.push(of(WAITING - 1));
            late.push(of(WAITING * 99 / 100) * 1_000.0);
        }
        let targets = if shape == Shape::Aws { (5.0, 1_000.0) } else { (2.0, 500.0) };
        figures.push(Figure::new(all[at], AtMost(targets.0), last));
        figures.push(Figure::new(p99[at], AtMost(targets.1), late));
    }
    Ok(figures)
}

/// Seconds from the beginning of the sync until each was answered.
async fn answers(shape: Shape) -> Result<Vec<f64>, Violation> {
    let provider = Provider::start(0).await;
    let setup = provider.setup().apis(1).workers(2).var("BROKER_WAITING", "on");
    let broker = Arc::new(Broker::start(shape.on(setup)).await);
    let body = json!({ "max_wait_s": 600 });
    let mut waiting = JoinSet::new();
    for n in 0..WAITING {
        let call = broker.allocate(&format!("student-{n}")).wait(50).json(&body);
        waiting.spawn(async move { (call.send().await, Instant::now()) });
    }
    wait_for_condition("all to wait", async || match broker.table().keys("LINE#").await.len() {
        WAITING => Ok(()),
        parked => Err(parked),
    })
    .await;
    shape.begin(&broker);
    provider.grow(WAITING).await;
    let began = Instant::now();
    broker.cli_ok(&["job", "run", "sync"]).await;
    let mut took = Vec::new();
    while let Some(answered) = waiting.join_next().await {
        let (told, at) = answered.expect("no call panics");
        told.expect_status(201);
        took.push(at.duration_since(began).as_secs_f64());
    }
    let broker = Arc::into_inner(broker).expect("nobody else has it");
    end(broker).await?;
    Ok(took)
}
