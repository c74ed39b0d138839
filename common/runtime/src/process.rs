//! A process of the broker: its parts, its start and its end.
//!
//! Invariant: one place turns a failed start or run into an exit code: 0 done, 1 failed, 2 a bad setting (named).

use std::env::VarsOs;
use std::error::Error;
use std::fmt::Display;
use std::io;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;

use tokio::net::{TcpListener, TcpSocket};
use tokio::runtime::{Builder, Runtime};

use crate::aws::{self, Aws, AwsEnvironment, Patience};
use crate::clock::Clock;
use crate::config::{CRASH_SETTING, Config, ConfigError, Strings, strings, unknown_names};
use crate::entropy::Entropy;
use crate::lifecycle::Lifecycle;
use crate::{crash_points, errors, metrics, telemetry, trace};

/// How many connections may wait to be accepted; the kernel takes `net.core.somaxconn` if that is less.
const BACKLOG: u32 = 4_096;
/// The stack of a thread that works, in bytes: what the main thread of Linux has. Acts of operators await much within each other,
/// and a debug build needs more than the 2 MiB of `std` for it. Only what is used takes memory.
const STACK: usize = 8 << 20;
/// What a socket holds of a request that is not read, and of an answer that the client does not take, in bytes; Linux doubles it.
pub const SOCKET_BUFFER_BYTES: u32 = 32 * 1024;

/// The parts of a process, passed down as arguments.
#[derive(Clone, Debug)]
pub struct Process {
    /// Its configuration.
    pub config: Arc<Config>,
    /// Its clock.
    pub clock: Clock,
    /// Its randomness.
    pub entropy: Entropy,
    /// Its AWS clients.
    pub aws: Aws,
    /// Its end.
    pub lifecycle: Lifecycle,
    /// Its metrics.
    pub metrics: metrics::Handle,
}

/// The parts of a process that only its start needs.
struct Started {
    process: Process,
    exporter: trace::Exporter,
}

/// Why a process could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Logging could not start.
    #[error(transparent)]
    Telemetry(#[from] telemetry::TelemetryError),
    /// Traces could not start.
    #[error(transparent)]
    Trace(#[from] trace::ExportError),
    /// Metrics could not start.
    #[error("metrics could not start")]
    Metrics(#[from] metrics::InstallError),
    /// The operating system refused.
    #[error("the process could not start")]
    Io(#[from] std::io::Error),
}

impl Started {
    /// Starts logging, traces and metrics as configured and connects to AWS as the environment says.
    async fn new(
        name: &str,
        strings: &dyn Strings,
        config: Config,
        aws: AwsEnvironment,
    ) -> Result<Self, StartError> {
        telemetry::start(&config.log, config.log_format)?;
        crash_points::arm(strings.get(CRASH_SETTING).as_deref());
        for unknown in unknown_names(strings) {
            tracing::warn!(
                name = unknown.name,
                nearest = unknown.nearest,
                "unknown setting: did you mean the nearest?"
            );
        }
        let clock = Clock::system();
        let entropy = Entropy::from_system();
        let exporter = trace::start(config.trace.as_ref(), &name.replace(' ', "-"), &entropy)?;
        let aws = aws::connect(aws, &clock, config.poll_wait, Patience::Short).await;
        let lifecycle = Lifecycle::new();
        lifecycle.end_on_signals()?;
        let metrics = metrics::install()?;
        tokio::spawn(metrics::upkeep(metrics.clone()));
        let process = Process { config: Arc::new(config), clock, entropy, aws, lifecycle, metrics };
        Ok(Self { process, exporter })
    }
}

/// An address that a process cannot listen on, and the remedy.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// The address is in use.
    #[error("port {} is taken ({address}): stop what listens there, perhaps another broker, or choose another with {setting} (0 takes a free one)", address.port())]
    Taken {
        /// The address.
        address: SocketAddr,
        /// The setting that chooses it.
        setting: &'static str,
    },
    /// The operating system refuses for another reason.
    #[error("cannot listen on {address}: choose another with {setting}")]
    Refused {
        /// The address.
        address: SocketAddr,
        /// The setting that chooses it.
        setting: &'static str,
        /// The error of the operating system.
        source: io::Error,
    },
}

/// Listens on `address`, which `setting` chooses.
pub async fn listen(address: SocketAddr, setting: &'static str) -> Result<TcpListener, ListenError> {
    bind(address).map_err(|source| {
        if source.kind() == io::ErrorKind::AddrInUse {
            ListenError::Taken { address, setting }
        } else {
            ListenError::Refused { address, setting, source }
        }
    })
}

/// As many connections as clients may open at once wait until they are accepted, and what the kernel keeps of an answer
/// that its client does not read is bounded: accepted sockets inherit it.
fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.set_send_buffer_size(SOCKET_BUFFER_BYTES)?;
    socket.set_recv_buffer_size(SOCKET_BUFFER_BYTES)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// The `main` of a process called `name`: starts it from its environment, runs it, reports how it ended.
pub fn main<F, Fut, E>(name: &'static str, environment: VarsOs, run: F) -> ExitCode
where
    F: FnOnce(Process) -> Fut,
    Fut: Future<Output = Result<(), E>>,
    E: AsRef<dyn Error> + Display,
{
    match strings(environment) {
        Ok(strings) => run_with(name, &strings, run),
        Err(error) => refuse(name, &error.to_string(), 2),
    }
}

/// [`main`] with settings from `strings`: flags over the environment.
pub fn run_with<F, Fut, E>(name: &'static str, strings: &dyn Strings, run: F) -> ExitCode
where
    F: FnOnce(Process) -> Fut,
    Fut: Future<Output = Result<(), E>>,
    E: AsRef<dyn Error> + Display,
{
    let read = Config::read(strings).and_then(|config| Ok((config, AwsEnvironment::read(strings)?)));
    let (config, aws) = match read {
        Ok(read) => read,
        Err(error) => return refuse(name, &error.to_string(), 2),
    };
    let runtime = match runtime(Some(config.threads)) {
        Ok(runtime) => runtime,
        Err(error) => return refuse(name, &error.to_string(), 1),
    };
    runtime.block_on(async {
        let Started { process, exporter } = match Started::new(name, strings, config, aws).await {
            Ok(started) => started,
            Err(error) => return refuse(name, &error.to_string(), 1),
        };
        let ended = run(process).await;
        exporter.end().await;
        match ended {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) if blames_a_setting(error.as_ref()) => refuse(name, &error.to_string(), 2),
            Err(error) => {
                tracing::error!(process = name, "ended: {error:#}");
                ExitCode::FAILURE
            }
        }
    })
}

/// A runtime on so many threads; without a number, on one for each core.
pub fn runtime(threads: Option<usize>) -> io::Result<Runtime> {
    let mut builder = Builder::new_multi_thread();
    builder.thread_stack_size(STACK).enable_all();
    if let Some(threads) = threads {
        builder.worker_threads(threads);
    }
    builder.build()
}

/// Whether the chain of causes contains a bad setting.
fn blames_a_setting(error: &(dyn Error + 'static)) -> bool {
    errors::causes(error).any(|cause| cause.is::<ConfigError>())
}

/// Writes the reason to standard error as plain text, because logging may not have started.
fn refuse(name: &str, problem: &str, code: u8) -> ExitCode {
    use std::io::Write as _;
    // Standard error may be closed.
    let _ = writeln!(std::io::stderr(), "{name}: {problem}");
    ExitCode::from(code)
}
