//! `broker provider`: only the provider stand-in, for other processes or tests; see [`broker_local::provider`].

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::Context as _;
use broker_domain::Sandbox;
use broker_runtime::clock::Clock;
use broker_runtime::config::{Config, ConfigError, HookSecret, Overlay, ProviderConfig, Strings};
use broker_runtime::lifecycle::Lifecycle;
use broker_runtime::{process, telemetry};
use clap::Args;
use secrecy::ExposeSecret as _;
use tokio_util::sync::CancellationToken;

use super::endpoints::QUIET_LOG;
use crate::context::Settings;
use crate::done::Done;
use crate::output;
use broker_local::provider::{StandIn, StandInOptions};

/// The default token of the stand-in; BROKER_PROVIDER_TOKEN overrides it.
const TOKEN: &str = "stand-in";

#[derive(Debug, Args)]
pub(crate) struct ProviderArgs {
    /// Port of the stand-in (0 takes a free one)
    #[arg(long, default_value_t = 0)]
    pub(crate) port: u16,
    /// The number of accounts; their ids are those of `broker pool seed`
    #[arg(long, default_value_t = 100)]
    pub(crate) accounts: usize,
    /// The number of accounts of a page
    #[arg(long, default_value_t = 100)]
    pub(crate) page_size: usize,
    /// The seconds after which a deleted account is replaced by a new one
    #[arg(long)]
    pub(crate) regrow_s: Option<u64>,
}

pub(crate) fn run(settings: &Settings, args: ProviderArgs) -> anyhow::Result<Done> {
    let defaults =
        [("BROKER_LOG", QUIET_LOG), ("BROKER_LOG_FORMAT", "text"), ("BROKER_PROVIDER_TOKEN", TOKEN)];
    let (config, provider) = read(settings, &defaults)?;
    telemetry::start(&config.log, config.log_format)?;
    let secrets = config.hooks.secrets;
    let runtime = tokio::runtime::Runtime::new().context("the async runtime did not start")?;
    runtime.block_on(async {
        let lifecycle = Lifecycle::new();
        lifecycle.end_on_signals()?;
        let options = StandInOptions {
            accounts: args.accounts,
            page_size: args.page_size,
            regrow_after: args.regrow_s.map(Duration::from_secs),
        };
        let stop = lifecycle.soft.clone();
        let provider = start(args.port, provider, &secrets, options, &[], Clock::system(), stop).await?;
        output::line(serde_json::json!({
            "provider_url": provider.url.to_string().trim_end_matches('/'),
            "token": provider.token.expose_secret(),
        }))?;
        lifecycle.soft.cancelled().await;
        Ok(Done::Ok)
    })
}

/// The settings of a process whose provider is a stand-in, and those of the provider; its URL is known once it listens.
pub(super) fn read(
    settings: &Settings,
    defaults: &[(&str, &str)],
) -> Result<(Config, ProviderConfig), ConfigError> {
    const URL: &str = "BROKER_PROVIDER_URL";
    let anywhere = BTreeMap::from([(URL.to_owned(), "http://127.0.0.1".to_owned())]);
    let read = |strings: &dyn Strings| Config::read(&Overlay { over: &anywhere, under: strings });
    let mut config = settings.over(defaults, read)?;
    let provider = config.provider.take().ok_or_else(|| ConfigError::new(URL, "is not set"))?;
    Ok((config, provider))
}

/// Starts a stand-in on loopback that has the accounts of `pool`; returns its configuration, `provider` with its URL.
pub(super) async fn start(
    port: u16,
    provider: ProviderConfig,
    hook_secrets: &[HookSecret],
    options: StandInOptions,
    pool: &[Sandbox],
    clock: Clock,
    stop: CancellationToken,
) -> anyhow::Result<ProviderConfig> {
    let address = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port);
    let listener = process::listen(address, "--port").await?;
    let address = listener.local_addr()?;
    let token = provider.token.expose_secret();
    let stand_in = StandIn::new(address, token, options, clock).with_hooks(hook_secrets);
    tokio::spawn(stand_in.with_pool(pool).serve(listener, stop));
    Ok(ProviderConfig { url: format!("http://{address}").parse()?, ..provider })
}
