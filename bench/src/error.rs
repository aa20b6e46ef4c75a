//! What can go wrong in a run. One run that fails is told in its row; the others go on.

use std::error::Error;
use std::io;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    #[error("{0} is not supported")]
    NotSupported(&'static str),
    /// The system has it, and the bench does not drive it.
    #[error("{0} is not measured")]
    NotMeasured(&'static str),
    #[error("{what} is not installed: {hint}")]
    NotInstalled { what: String, hint: &'static str },
    #[error("could not {doing}: {source}")]
    Io {
        doing: String,
        #[source]
        source: io::Error,
    },
    #[error("could not {doing}: {source}")]
    Client {
        doing: String,
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    #[error("the server refused {doing}: {text}")]
    Refused { doing: String, text: String },
    #[error("{process} ended with {status}, the end of its log:\n{log}")]
    Ended {
        process: String,
        status: ExitStatus,
        log: String,
    },
    #[error("{process} was not ready within {seconds} s, the end of its log:\n{log}")]
    NotReady {
        process: String,
        seconds: u64,
        log: String,
    },
    #[error("it does not keep up with {per_second} messages a second: {under_way} are under way")]
    Behind { per_second: usize, under_way: usize },
    #[error("{doing} took longer than {seconds} s")]
    TooSlow { doing: String, seconds: u64 },
    #[error(
        "{} was not made by the bench, which would remove it: name another --directory",
        .folder.display()
    )]
    NotOurs { folder: PathBuf },
}

impl BenchError {
    /// For `map_err` on what an operating system call gave.
    pub fn io(doing: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let doing = doing.into();
        move |source| Self::Io { doing, source }
    }

    /// For `map_err` on what a client library gave.
    pub fn client<E>(doing: impl Into<String>) -> impl FnOnce(E) -> Self
    where
        E: Into<Box<dyn Error + Send + Sync>>,
    {
        let doing = doing.into();
        move |source| Self::Client {
            doing,
            source: source.into(),
        }
    }
}

/// Does some work, and gives up when it takes too long.
pub async fn within<T>(
    seconds: u64,
    doing: impl FnOnce() -> String,
    work: impl Future<Output = Result<T, BenchError>>,
) -> Result<T, BenchError> {
    let done = tokio::time::timeout(Duration::from_secs(seconds), work).await;
    done.unwrap_or_else(|_| {
        Err(BenchError::TooSlow {
            doing: doing(),
            seconds,
        })
    })
}
