//! `broker endpoints`: only the embedded SQS and DynamoDB endpoints, for other processes, the AWS CLI or tests.

use std::net::{IpAddr, Ipv4Addr};

use anyhow::Context as _;
use broker_runtime::config::Config;
use broker_runtime::lifecycle::Lifecycle;
use broker_runtime::telemetry;

use crate::args;
use crate::context::Settings;
use crate::done::Done;
use crate::output;
use broker_local::endpoints::{self, Endpoints};

/// The endpoint libraries log every refused write and every queue.
pub(super) const QUIET_LOG: &str = "warn,dynoxide=error,rustack_sqs_core=error";

pub(crate) fn run(settings: &Settings, args: args::Endpoints) -> anyhow::Result<Done> {
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

/// Starts the endpoints on loopback; they stop with the lifecycle's soft end.
pub(super) async fn start(args: args::Endpoints, lifecycle: &Lifecycle) -> anyhow::Result<Endpoints> {
    let options = endpoints::Options {
        host: IpAddr::V4(Ipv4Addr::LOCALHOST),
        dynamodb_port: args.dynamodb_port,
        sqs_port: args.sqs_port,
        data_dir: args.data_dir,
    };
    Ok(endpoints::start(options, lifecycle.soft.clone()).await?)
}
