//! What a command says when it cannot do what it was asked: what happened, why, what to do.

use std::fmt::{self, Display};
use std::process::ExitCode;

/// How the process ends. The numbers are part of the interface; `--help` lists them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Exit {
    /// Something failed that has no number of its own.
    Failed = 1,
    /// The command line, or a request made from it, is wrong.
    Usage = 2,
    /// An input file is not what it should be.
    Malformed = 3,
    /// A file, a model or a receipt is not there.
    NotFound = 4,
    /// Not allowed, or a secret lies open.
    Permission = 5,
    /// Nobody answers at an address.
    Unreachable = 6,
    /// It took too long.
    Timeout = 7,
    /// The port, or the data directory, is in use; or everybody who could answer is busy.
    Conflict = 8,
    /// A model does not fit into memory.
    Memory = 9,
    /// A receipt, or a model, is false.
    False = 10,
    /// A receipt stands: it is true, or whoever disputed it has lost.
    Stands = 11,
    /// Nothing binds the answer to the model: it is signed, and that is all.
    Unbound = 12,
}

/// The list of exit codes for `--help`.
pub(crate) const EXIT_CODES: &str = "\
Exit codes:
   0  done; for `verify`: the receipt is true; for `dispute open`: the provider was convicted
   1  failed
   2  wrong usage
   3  an input file is malformed
   4  a file, model or receipt was not found
   5  no permission, or a key file that others can read
   6  nobody answers at the address
   7  timed out
   8  in use or busy: the port, the data directory, every provider
   9  the model does not fit into memory
  10  verification failed: the receipt, or the model, is false
  11  `dispute open`: the receipt stands, for it is true, or the dispute was lost
  12  `verify`: the receipt is signed, and bound to no computation: it is scored only
 130  interrupted (second Ctrl-C), 143 terminated (second SIGTERM)";

/// A command's failure, in three parts.
#[derive(Debug)]
pub(crate) struct Failure {
    exit: Exit,
    what: String,
    why: Option<String>,
    fix: Option<String>,
}

/// What a command returns.
pub(crate) type Outcome<T = ()> = Result<T, Failure>;

impl Failure {
    /// A failure of which only is known what happened.
    pub(crate) fn new(exit: Exit, what: impl Display) -> Self {
        Self { exit, what: what.to_string(), why: None, fix: None }
    }

    /// Adds the reason.
    pub(crate) fn why(self, why: impl Display) -> Self {
        Self { why: Some(why.to_string()), ..self }
    }

    /// Adds what the reader can do about it.
    pub(crate) fn fix(self, fix: impl Display) -> Self {
        Self { fix: Some(fix.to_string()), ..self }
    }

    /// Whether it ends the process this way.
    pub(crate) fn is(&self, exit: Exit) -> bool {
        self.exit == exit
    }

    /// What happened, and why, in one line.
    pub(crate) fn what(&self) -> String {
        match &self.why {
            Some(why) => format!("{}: {why}", self.what),
            None => self.what.clone(),
        }
    }

    /// What to do about it.
    pub(crate) fn advice(&self) -> &str {
        self.fix.as_deref().unwrap_or_default()
    }

    /// What the process ends with.
    pub(crate) fn exit(&self) -> ExitCode {
        ExitCode::from(self.exit as u8)
    }

    /// A file that cannot be read or written; the exit code says which way it failed.
    pub(crate) fn file(what: impl Display, error: &std::io::Error) -> Self {
        let exit = match error.kind() {
            std::io::ErrorKind::NotFound => Exit::NotFound,
            std::io::ErrorKind::PermissionDenied | std::io::ErrorKind::ReadOnlyFilesystem => {
                Exit::Permission
            }
            _ => Exit::Failed,
        };
        let failure = Self::new(exit, what).why(error);
        match error.kind() {
            std::io::ErrorKind::StorageFull => failure.fix("free some space on that disk"),
            _ => failure,
        }
    }
}

impl Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        if let Some(why) = &self.why {
            write!(f, "\n  why: {why}")?;
        }
        if let Some(fix) = &self.fix {
            write!(f, "\n  fix: {fix}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_has_up_to_three_parts() {
        let failure = Failure::new(Exit::Conflict, "port 80 is in use");
        assert_eq!(failure.to_string(), "port 80 is in use");
        let failure = failure.why("it is").fix("pass --port 0");
        assert_eq!(failure.to_string(), "port 80 is in use\n  why: it is\n  fix: pass --port 0");
    }

    #[test]
    fn help_lists_every_code() {
        use Exit::*;
        let codes = [
            Failed,
            Usage,
            Malformed,
            NotFound,
            Permission,
            Unreachable,
            Timeout,
            Conflict,
            False,
            Stands,
            Unbound,
        ];
        for code in codes {
            let line = format!("\n{:>4}  ", code as u8);
            assert!(EXIT_CODES.contains(&line), "{code:?}");
        }
    }
}
