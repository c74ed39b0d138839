//! Result of a command that did not fail.

use std::process::ExitCode;

/// How a command that did not fail ended.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Done {
    /// As asked.
    Ok,
    /// With the exit code of the process that it ran.
    Exit(ExitCode),
    /// Not as asked; the reason was printed.
    Failed,
    /// The command line says too little, or contradicts itself.
    Misused,
    /// It found that a promise is broken.
    ViolationFound,
}
