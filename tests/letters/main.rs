//! `broker-letters`: many dead letters, and how fast they are drained, listed and replayed.
//!
//! Starts endpoints and workers as processes and runs the story of `many`, which asserts what must be exact. With `--calls`
//! everything goes through the proxy, which counts the calls to AWS and delays them.

#[path = "many.rs"]
mod many;

use std::time::Duration;

use broker_tests::{Broker, Setup};
use clap::Parser;

/// Drains, lists, replays and verifies many dead letters.
#[derive(Debug, Parser)]
struct Arguments {
    /// How many; a multiple of four
    #[arg(long, default_value_t = 25_000)]
    count: usize,
    /// Count the calls of the drain and of the replay, through a proxy
    #[arg(long)]
    calls: bool,
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let arguments = Arguments::parse();
    let count = arguments.count.next_multiple_of(4);
    let setup = Setup::new().apis(0).workers(0).pool(count / 4 + 10);
    let setup = if arguments.calls { setup.faults(1) } else { setup };
    let mut broker = Broker::start(setup).await;
    let figures = many::tell(&mut broker, count).await;
    let rate = |count: usize, took: Duration| count as f64 / took.as_secs_f64();
    println!("{count} letters drained by 2 workers: {:.0}/s", rate(count, figures.drained));
    println!("listed: {:.0}/s; by queue and kind: {:.2?}", rate(count, figures.listed), figures.filtered);
    let (replay, took) = (&figures.replay, Duration::from_millis(figures.replay.duration_ms));
    println!(
        "{} replayed when the process was killed, {} by the next run ({} left behind by the first): {:.0}/s",
        figures.replayed_at_death,
        replay.done,
        replay.resumed,
        rate(replay.done as usize, took)
    );
    for (what, calls, letters) in
        [("drain", &figures.drain_calls, count as u64), ("replay", &figures.replay_calls, replay.done)]
    {
        for (operation, calls) in calls {
            println!("{what}: {operation} {calls}, {:.3} a letter", *calls as f64 / letters as f64);
        }
    }
    broker.finish().await;
    println!("pool verify found nothing, no letter is left, all queues are empty.");
}
