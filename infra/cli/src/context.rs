//! Context of the operator's commands: settings, clock, AWS clients and table.

use std::collections::BTreeMap;
use std::ffi::OsString;

use anyhow::{Context as _, ensure};
use broker_domain::{Pause, Timestamp};
use broker_queue::{QueueError, QueueNames, SendError};
use broker_runtime::aws::{self, Aws, AwsEnvironment, Patience};
use broker_runtime::clock::Clock;
use broker_runtime::config::{
    CRASH_SETTING, Config, ConfigError, Overlay, SETTINGS, Strings, UnknownName, strings, unknown_names,
};
use broker_runtime::crash_points;
use broker_runtime::entropy::Entropy;
use broker_runtime::telemetry;
use broker_store::adoption::AdoptError;
use broker_store::reconcile::ReconcileError;
use broker_store::reshard::ReshardError;
use broker_store::scan_all::ScanError;
use broker_store::{Act, AuditLine, NotDone, SettingsError, Store, StoreError, Write};
use tokio::task::JoinError;

use crate::done::Done;
use crate::output;

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
    pub(crate) fn new(
        flags: Flags,
        by: String,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<Self, ConfigError> {
        Ok(Self { flags, by, environment: strings(environment)? })
    }

    /// A variable of the environment that is no setting.
    pub(crate) fn variable(&self, name: &str) -> Option<String> {
        self.environment.get(name).cloned()
    }

    /// The names of the environment that look like settings and are not.
    pub(crate) fn unknown_names(&self) -> Vec<UnknownName> {
        unknown_names(&self.environment)
    }

    /// Calls `with` with the settings, laid over the `defaults` of a command. A secret that a file holds has no default.
    pub(crate) fn over<T>(&self, defaults: &[(&str, &str)], with: impl FnOnce(&dyn Strings) -> T) -> T {
        let is_in_a_file = |name: &str| {
            let is_secret = SETTINGS.iter().any(|setting| setting.secret && setting.name == name);
            is_secret && self.environment.contains_key(&format!("{name}_FILE"))
        };
        let defaults = defaults.iter().filter(|(name, _)| !is_in_a_file(name));
        let defaults: BTreeMap<String, String> =
            defaults.map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
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

impl Context {
    pub(crate) fn new(config: Config, clock: Clock, aws: Aws, operator: String) -> anyhow::Result<Self> {
        let names = QueueNames::new(&config.prefix)?;
        let store = Store::new(aws.dynamodb.clone(), &config.table, config.state_shards);
        Ok(Self { config, clock, entropy: Entropy::from_system(), aws, names, store, operator })
    }

    /// Refuses settings with which the table's data was not written, and a table that does not say with which it was. One that is
    /// not there has no data.
    pub(crate) async fn check_settings(&self) -> anyhow::Result<()> {
        match self.store.pool.check_settings(&self.config.prefix).await {
            Ok(()) | Err(SettingsError::Store(StoreError::NoTable { .. })) => Ok(()),
            Err(SettingsError::Setting(error)) => Err(error.into()),
            Err(SettingsError::Store(error)) => {
                Err(error).context("whether the settings are those of the table is not known")
            }
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

    /// Writes the audit line that comes before an operation. [`Context::act`] does it where it may be refused.
    pub(crate) async fn audit(
        &self,
        act: Act,
        target: &str,
        count: Option<u64>,
    ) -> anyhow::Result<AuditLine> {
        let (at, id) = (self.now().await?, self.entropy.uuid());
        let line = AuditLine { count, ..AuditLine::new(at, id, &self.operator, act, target) };
        self.store.audit.record(&line).await?;
        Ok(line)
    }

    /// Performs an operation under its audit line, which tells if it was refused or failed.
    pub(crate) async fn act<T>(
        &self,
        what: (Act, &str, Option<u64>),
        perform: impl AsyncFnOnce(&AuditLine) -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        self.act_because(what, None, perform).await
    }

    /// The same with a reason.
    pub(crate) async fn act_because<T>(
        &self,
        (act, target, count): (Act, &str, Option<u64>),
        why: Option<String>,
        perform: impl AsyncFnOnce(&AuditLine) -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        let (at, id) = (self.now().await?, self.entropy.uuid());
        let line = AuditLine { count, why, ..AuditLine::new(at, id, &self.operator, act, target) };
        self.store.audit.record(&line).await?;
        let performed = perform(&line).await;
        if let Err(error) = &performed {
            let why = format!("{error:#}");
            let how = if is_refusal(error) { NotDone::Refused(why) } else { NotDone::Failed(why) };
            self.not_done(&line, &how).await;
        }
        performed
    }

    /// Says in the line of an operation that it was not done.
    pub(crate) async fn not_done(&self, line: &AuditLine, how: &NotDone) {
        if let Err(error) = self.store.audit.record_not_done(line, how).await {
            output::complain(&format!("the audit does not tell that this was not done: {error}"));
        }
    }

    /// Says in the line of an operation that it was so already, and returns the words for its operator.
    pub(crate) async fn unchanged(&self, line: &AuditLine, already: &str) -> String {
        self.not_done(line, &NotDone::Unchanged(already.to_owned())).await;
        format!("{already}, nothing was changed")
    }

    /// The same of a pause that was not written because another stands.
    pub(crate) async fn already_paused(&self, line: &AuditLine, paused: Write<Pause>) -> Option<String> {
        match paused {
            Write::Applied => None,
            Write::Rejected(pause) => Some(self.unchanged(line, &format!("already {pause}")).await),
        }
    }

    /// Says in the line of an operation what came of it, as JSON. The operation is done: its result does not depend on this.
    pub(crate) async fn ended(&self, line: &AuditLine, what: &str) {
        if let Err(error) = self.store.audit.record_end(line.id, line.at, what).await {
            output::complain(&format!("the audit does not tell what came of this: {error}"));
        }
    }
}

/// Whether an error says that something is not as it must be, and not that AWS did not answer.
fn is_refusal(error: &anyhow::Error) -> bool {
    let of_aws = |cause: &(dyn std::error::Error + 'static)| {
        cause.is::<StoreError>()
            || cause.is::<ScanError>()
            || cause.is::<QueueError>()
            || cause.is::<JoinError>()
            // It is not known whether SQS has the message.
            || matches!(cause.downcast_ref(), Some(SendError::Unavailable { .. }))
    };
    // These show the errors of AWS in the place of their own.
    let adopt = matches!(
        error.downcast_ref(),
        Some(AdoptError::Scan(_) | AdoptError::Store(_) | AdoptError::Write(_))
    );
    let reconcile = matches!(
        error.downcast_ref(),
        Some(ReconcileError::Scan(_) | ReconcileError::Store(_) | ReconcileError::Step(_))
    );
    let reshard = matches!(error.downcast_ref(), Some(ReshardError::Scan(_) | ReshardError::Store(_)));
    !adopt && !reconcile && !reshard && !error.chain().any(of_aws)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn a_default_gives_way_to_the_file_of_a_secret_and_what_is_set_does_not() {
        let get = |environment: &[(&str, &str)], name: &str| {
            let environment = environment.iter().map(|(name, value)| (name.into(), value.into()));
            let settings = Settings::new(Flags::new(), "cli".to_owned(), environment).unwrap();
            let defaults = [("BROKER_PROVIDER_TOKEN", "default"), ("BROKER_LOG", "default")];
            settings.over(&defaults, |strings| strings.get(name))
        };
        let file = ("BROKER_PROVIDER_TOKEN_FILE", "/token");
        let set = ("BROKER_PROVIDER_TOKEN", "set");
        assert_eq!(get(&[], set.0).as_deref(), Some("default"));
        assert_eq!(get(&[file], set.0), None);
        assert_eq!(get(&[file, set], set.0).as_deref(), Some("set"), "which is refused");
        assert_eq!(get(&[("BROKER_LOG_FILE", "/log")], "BROKER_LOG").as_deref(), Some("default"));
    }

    #[test]
    fn what_aws_does_not_answer_is_no_refusal() {
        assert!(is_refusal(&anyhow::anyhow!("a is available: it has no lease")));
        assert!(is_refusal(&AdoptError::NotAlone { living: 2 }.into()));
        assert!(is_refusal(&ReconcileError::Open.into()));
        assert!(!is_refusal(&StoreError::Conflict.into()));
        let queue: Arc<str> = "maintenance".into();
        assert!(is_refusal(&SendError::Gone { queue: Arc::clone(&queue) }.into()));
        assert!(!is_refusal(
            &SendError::Unavailable { queue, source: Arc::new(std::io::Error::other("no answer")) }.into()
        ));
        assert!(!is_refusal(
            &anyhow::Error::from(StoreError::Conflict).context("three were extended before this")
        ));
        assert!(!is_refusal(&AdoptError::Store(StoreError::Conflict).into()));
        assert!(!is_refusal(&ReshardError::Store(StoreError::Conflict).into()));
    }
}
