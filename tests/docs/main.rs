//! `broker-docs`: the documentation against a running broker.
//!
//! `console` opens `/console` in a real Chromium and works as an operator; `page` opens `/v1/docs` in a real Chromium and allocates
//! through it, as a reader would; `contract` runs schemathesis on
//! everything that `/v1/openapi.json` promises. They are separate commands, because each needs a program that `cargo test`
//! must do without; a missing one is a failure here. Exit codes: 0 all as documented, 1 not (or a panic with the reason).

mod chromium;
mod console;
mod contract;
mod page;

use std::process::ExitCode;

use broker_tests::{Broker, Setup};
use clap::{Parser, Subcommand};

/// Tries the documentation on a running broker.
#[derive(Debug, Parser)]
struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Clone, Copy, Debug, Subcommand)]
enum What {
    /// Allocate through the page in a real Chromium; leaves a screenshot in target/
    Page,
    /// Do what an operator does in the console, in a real Chromium; leaves screenshots in target/console/
    Console {
        /// Sandboxes of the pool
        #[arg(long, default_value_t = 60)]
        sandboxes: usize,
        /// Dead letters, beside those of the story
        #[arg(long, default_value_t = 40)]
        letters: usize,
    },
    /// Let schemathesis loose on every operation, with all checks
    Contract {
        /// Test cases of each operation and phase
        #[arg(long, default_value_t = 100)]
        examples: u32,
        /// Repeats a run; without one each is another
        #[arg(long)]
        seed: Option<u64>,
    },
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let what = Arguments::parse().what;
    let found = match what {
        What::Page => chromium::executable().map(|_| ()),
        What::Console { .. } => chromium::executable().and(chromium::axe()).map(|_| ()),
        What::Contract { .. } => contract::is_installed(),
    };
    if let Err(missing) = found {
        eprintln!("{missing}");
        return ExitCode::FAILURE;
    }
    if let What::Console { sandboxes, letters } = what {
        console::tells_why(sandboxes, letters).await;
        return ExitCode::SUCCESS;
    }
    // More sandboxes than either asks for, so that most allocations are one.
    let broker = Broker::start(Setup::new().apis(1).workers(2).pool(2_000)).await;
    let as_documented = match what {
        What::Page => {
            page::allocates(&broker).await;
            true
        }
        // Told above, with a broker of its own.
        What::Console { .. } => true,
        What::Contract { examples, seed } => contract::holds(&broker, examples, seed).await,
    };
    if !as_documented {
        broker.abandon();
        return ExitCode::FAILURE;
    }
    broker.finish().await;
    println!("All as documented; verify found nothing, the queues are empty.");
    ExitCode::SUCCESS
}
