//! Context of the operator's commands: settings, clock, AWS clients and table.

use std::collections::BTreeMap;
use std::env::VarsOs;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use broker_domain::Timestamp;
use broker_queue::QueueNames;
use broker_runtime::aws::{self, Aws, AwsEnvironment, Patience};
use broker_runtime::clock::Clock;
use broker_runtime::config::{CRASH_SETTING, Config, Overlay, Strings, strings};
use broker_runtime::crash_points;
use broker_runtime::entropy::Entropy;
use broker_runtime::telemetry;
use broker_store::{Act, AuditLine, SettingsError, Store};

use crate::done::Done;

/// Settings given as flags, by name.
pub(crate) type Flags = BTreeMap<String, String>;

/// Settings: flags over the environment over the defaults of a command.
#[derive(Debug)]
pub(crate) struct Settings {
    flags: Flags,
    /// The operator's name.
    by: String,
    environment: BTreeMap<String, String>,
}

impl Settings {
    pub(crate) fn new(flags: Flags, by: String, environment: VarsOs) -> Self {
        Self { flags, by, environment: strings(environment) }
    }

    /// A variable of the environment that is no setting.
    pub(crate) fn variable(&self, name: &str) -> Option<String> {
        self.environment.get(name).cloned()
    }

    /// Calls `with` with the settings, laid over the `defaults` of a command.
    pub(crate) fn over<T>(&self, defaults: &[(&str, &str)], with: impl FnOnce(&dyn Strings) -> T) -> T {
        let defaults: BTreeMap<String, String> =
            defaults.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let environment = Overlay { over: &self.environment, under: &defaults };
        with(&Overlay { over: &self.flags, under: &environment })
    }

    /// Runs a command that ends by itself, with settings that fit the table's data. It logs only warnings.
    pub(crate) fn once<F>(&self, command: F) -> anyhow::Result<Done>
    where
        F: AsyncFnOnce(Context) -> anyhow::Result<Done>,
    {
        self.once_unbound(Patience::Long, async |context| {
            context.check_settings().await?;
            command(context).await
        })
    }

    /// The same with any settings: for a command that tells what is wrong with them.
    pub(crate) fn once_unbound<F>(&self, patience: Patience, command: F) -> anyhow::Result<Done>
    where
        F: AsyncFnOnce(Context) -> anyhow::Result<Done>,
    {
        let config = self.over(&[("BROKER_LOG", "warn"), ("BROKER_LOG_FORMAT", "text")], Config::read)?;
        let environment = self.over(&[], AwsEnvironment::read)?;
        telemetry::start(&config.log, config.log_format)?;
        self.over(&[], |strings| crash_points::arm(strings.get(CRASH_SETTING).as_deref()));
        let runtime = tokio::runtime::Runtime::new().context("the async runtime did not start")?;
        runtime.block_on(async {
            let clock = Clock::system();
            let aws = aws::connect(environment, &clock, config.poll_wait, patience).await;
            command(Context::new(config, clock, aws, self.by.clone())?).await
        })
    }
}

/// The context of a command.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) config: Config,
    pub(crate) clock: Clock,
    pub(crate) entropy: Entropy,
    pub(crate) aws: Aws,
    pub(crate) names: QueueNames,
    pub(crate) store: Store,
    /// The operator's name; AWS knows whose credentials the command has.
    pub(crate) operator: String,
}

/// Answers of AWS that a clock is compared with before it is believed: three that agree correct it.
pub(crate) const COMPARED: usize = 4;
/// How long a command waits to compare its settings with the table's.
const BINDING_ANSWERS_WITHIN: Duration = Duration::from_secs(3);

impl Context {
    pub(crate) fn new(config: Config, clock: Clock, aws: Aws, operator: String) -> anyhow::Result<Self> {
        let names = QueueNames::new(&config.prefix)?;
        let store = Store::new(aws.dynamodb.clone(), &config.table, config.state_shards);
        Ok(Self { config, clock, entropy: Entropy::from_system(), aws, names, store, operator })
    }

    /// Refuses settings with which the table's data was not written. What else is wrong with the table, the command tells.
    async fn check_settings(&self) -> anyhow::Result<()> {
        let check = self.store.pool.check_settings(&self.config.prefix);
        match tokio::time::timeout(BINDING_ANSWERS_WITHIN, check).await {
            Ok(Err(SettingsError::Setting(error))) => Err(error.into()),
            Ok(Ok(()) | Err(SettingsError::Store(_))) | Err(_) => Ok(()),
        }
    }

    /// The time by AWS's clock, for whatever is written: a machine's own may be minutes ahead, and what is fenced off by it
    /// would lock owners out for as long.
    ///
    /// The first call compares the clock with the dates of a few answers, if none did before.
    pub(crate) async fn now(&self) -> anyhow::Result<Timestamp> {
        for _ in 0..COMPARED {
            if self.clock.is_trusted() {
                break;
            }
            self.store.ping().await?;
        }
        ensure!(
            self.clock.is_trusted(),
            "the time is not known: AWS's answers have no date, or their dates disagree with each other; see `broker doctor`"
        );
        Ok(self.clock.now())
    }

    /// Writes the audit line that comes before an operation.
    pub(crate) async fn audit(&self, act: Act, target: &str, count: Option<u64>) -> anyhow::Result<()> {
        let (at, id) = (self.now().await?, self.entropy.uuid());
        let (who, target) = (self.operator.clone(), target.to_owned());
        self.store
            .audit
            .record(&AuditLine { at, id, who, act, target, why: None, count, ended: None })
            .await?;
        Ok(())
    }
}
