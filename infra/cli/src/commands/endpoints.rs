//! `broker endpoints`: only the embedded SQS and DynamoDB endpoints, for other processes, the AWS CLI or tests.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use anyhow::Context as _;
use broker_runtime::clock::Clock;
use broker_runtime::config::Config;
use broker_runtime::lifecycle::Lifecycle;
use broker_runtime::telemetry;
use clap::Args;

use crate::context::Settings;
use crate::done::Done;
use crate::output;
use broker_local::aws_shape::{Relay, ShapedService, Shaper};
use broker_local::endpoints::{self, Endpoints};

/// The endpoint libraries log every refused write and every queue.
pub(super) const QUIET_LOG: &str = "warn,dynoxide=error,rustack_sqs_core=error";

#[derive(Debug, Default, Args)]
pub(crate) struct EndpointsArgs {
    /// Port of the DynamoDB endpoint (0 takes a free one)
    #[arg(long, default_value_t = 0)]
    pub(crate) dynamodb_port: u16,
    /// Port of the SQS endpoint (0 takes a free one)
    #[arg(long, default_value_t = 0)]
    pub(crate) sqs_port: u16,
    /// Keep the table in this directory; without it, it is lost at the end
    #[arg(long)]
    pub(crate) data_dir: Option<PathBuf>,
    /// Behave as AWS does: hops of 4 to 25 ms with tails, an index that lags, conflicts, hot partitions, queues that linger
    #[arg(long)]
    pub(crate) aws_latency: bool,
}

pub(crate) fn run(settings: &Settings, args: EndpointsArgs) -> anyhow::Result<Done> {
    let config = settings.over(&[("BROKER_LOG", QUIET_LOG), ("BROKER_LOG_FORMAT", "text")], Config::read)?;
    telemetry::start(&config.log, config.log_format)?;
    let runtime = tokio::runtime::Runtime::new().context("the async runtime did not start")?;
    runtime.block_on(async {
        let lifecycle = Lifecycle::new();
        lifecycle.end_on_signals()?;
        let endpoints = start(args, &lifecycle).await?;
        output::line(
            serde_json::json!({ "dynamodb_url": endpoints.dynamodb_url, "sqs_url": endpoints.sqs_url }),
        )?;
        endpoints.stopped().await;
        Ok(Done::Ok)
    })
}

/// What `--aws-latency` repeats its choices by.
const SEED: u64 = 1;

/// Starts the endpoints on loopback, behind a relay if they are to behave as AWS; they stop with the lifecycle's soft end.
pub(super) async fn start(args: EndpointsArgs, lifecycle: &Lifecycle) -> anyhow::Result<Endpoints> {
    let host = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let behind = |port| if args.aws_latency { 0 } else { port };
    let options = endpoints::EndpointOptions {
        host,
        dynamodb_port: behind(args.dynamodb_port),
        sqs_port: behind(args.sqs_port),
        data_dir: args.data_dir,
        clock: Clock::system(),
    };
    let mut endpoints = endpoints::start(options, lifecycle.soft.clone()).await?;
    if args.aws_latency {
        let shaper = Shaper::new(SEED, Clock::system());
        let before = async |service, url: &str, port, option| {
            let relay = Relay::new(service, url, shaper.clone());
            let address = SocketAddr::new(host, port);
            let bound = relay.start(address, lifecycle.soft.clone()).await;
            let bound =
                bound.with_context(|| format!("cannot listen on {address}: choose another with {option}"));
            anyhow::Ok(format!("http://{}", bound?))
        };
        let dynamodb = &endpoints.dynamodb_url;
        let dynamodb_url =
            before(ShapedService::DynamoDb, dynamodb, args.dynamodb_port, "--dynamodb-port").await?;
        let sqs_url = before(ShapedService::Sqs, &endpoints.sqs_url, args.sqs_port, "--sqs-port").await?;
        (endpoints.dynamodb_url, endpoints.sqs_url) = (dynamodb_url, sqs_url);
    }
    Ok(endpoints)
}
