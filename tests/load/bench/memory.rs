//! Memory of an API whose clients send large requests and read no answer, compared with the memory limit of the deployments.

use std::process::ExitCode;

use broker_tests::{Broker, Setup, raw};
use clap::Args;

/// The memory of an API task in Terraform and of its container in Kubernetes, in MiB.
const LIMIT_MIB: f64 = 512.0;
/// The connections for which an API takes itself to have room in so much memory (`api/src/http/room.rs`).
const ROOM: usize = 2_048;
/// Connections that come beside those.
const MORE: usize = 500;
/// Linux's page, in MiB.
const PAGE_MIB: f64 = 4.0 / 1_024.0;

/// How much they ask for.
#[derive(Debug, Args)]
pub(crate) struct Memory {
    /// Times that each connection asks for the largest file
    #[arg(long, default_value_t = 3)]
    asks: usize,
}

impl Memory {
    /// Measures; fails if the process and what the kernel holds for both ends come to more than the limit.
    pub(crate) async fn run(self) -> ExitCode {
        let most = ROOM.to_string();
        let setup = Setup::new().alone().apis(1).workers(0).var("BROKER_MAX_CONNECTIONS", &most);
        let mut broker = Broker::start(setup).await;
        let api = broker.api(0).clone();
        let (before, in_kernel) = (broker.api_process(0).resident_mib(), sockets_mib());
        let head = "GET /v1/docs/swagger-ui-bundle.js HTTP/1.1\r\nhost: x\r\n\r\n".repeat(self.asks);
        let mut held = Vec::new();
        let (mut most_mib, mut kernel_mib) = (before, 0.0_f64);
        for n in 0..ROOM + MORE {
            held.push(raw::open(&api, head.as_bytes()).await);
            if n % 100 == 0 {
                most_mib = most_mib.max(broker.api_process(0).resident_mib());
                kernel_mib = kernel_mib.max(sockets_mib() - in_kernel);
            }
        }
        let alive = api.probe("/healthz").await.map(|(status, _)| status);
        most_mib = most_mib.max(broker.api_process(0).resident_mib());
        kernel_mib = kernel_mib.max(sockets_mib() - in_kernel);
        drop(held);
        broker.finish().await;

        let all = most_mib + kernel_mib;
        println!(
            "{} connections, {ROOM} of them at a time: {before:.0} MiB before, {most_mib:.0} MiB at most, {kernel_mib:.0} MiB in the \
             kernel for both ends; together {all:.0} of {LIMIT_MIB:.0} MiB; a probe meanwhile: {alive:?}",
            ROOM + MORE
        );
        if all <= LIMIT_MIB && alive == Some(200) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

/// What the kernel holds in buffers of all TCP sockets of this machine.
fn sockets_mib() -> f64 {
    let told = std::fs::read_to_string("/proc/net/sockstat").unwrap_or_default();
    let tcp = told.lines().find(|line| line.starts_with("TCP:"));
    let pages = tcp.and_then(|line| line.split_whitespace().last()?.parse::<f64>().ok());
    pages.unwrap_or_default() * PAGE_MIB
}
