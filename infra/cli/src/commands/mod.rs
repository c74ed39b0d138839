//! The commands, a file each.

pub(crate) mod audit;
pub(crate) mod dead_letters;
pub(crate) mod doctor;
pub(crate) mod endpoints;
pub(crate) mod fleet;
pub(crate) mod init;
pub(crate) mod job;
pub(crate) mod pool;
pub(crate) mod processes;
pub(crate) mod provider;
pub(crate) mod queues;
mod resend;
pub(crate) mod sandbox;
pub(crate) mod up;

use std::process::ExitCode;

/// How a command that did not fail ended.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Done {
    /// As asked.
    Ok,
    /// With the exit code of the process that it ran.
    Exit(ExitCode),
    /// The command line says too little, or contradicts itself.
    Misused,
    /// It found that a promise is broken.
    ViolationFound,
}
