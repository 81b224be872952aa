//! Why the program does not start.

use std::path::PathBuf;

use crate::base::random::RandomUnavailable;
use crate::connection::OpeningError;
use crate::definition::problem::Problem;
use crate::definition::render::Report;
use crate::net::resolve::NoNameServers;
use crate::server::CannotListen;
use crate::store::StoreError;

/// Why the program does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// There is no gateway file.
    #[error("{} does not exist: name your gateway file with --config, or begin with `examples/quickstart`", .0.display())]
    NoGatewayFile(PathBuf),
    /// The gateway file has faults; definitions with faults do not keep the program from starting.
    #[error("the gateway file has faults:\n{}", .0.text(false))]
    Configuration(Box<Report>),
    /// `--mock` without development mode.
    #[error("--mock sends every call to a simulation, so it needs `mode: development` or --dev")]
    MockInProduction,
    /// The gateway file asks for something that this version does not run.
    #[error("the gateway file has `{0}`, which is not yet run by this version: take it out to start without it")]
    NotYet(String),
    /// There is no usable master key, or it does not fit the store.
    #[error(transparent)]
    Connections(#[from] OpeningError),
    /// The store cannot be opened.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A door cannot be opened.
    #[error(transparent)]
    Door(#[from] CannotListen),
    /// Names cannot be resolved.
    #[error(transparent)]
    Names(#[from] NoNameServers),
    /// There is no randomness.
    #[error(transparent)]
    Random(#[from] RandomUnavailable),
    /// The list of metrics is faulty.
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
    /// A part of the start broke; the log says where.
    #[error("starting failed: {0}")]
    Broken(String),
}

impl StartError {
    /// The faults that keep the program from starting; what is only worth knowing is left to `check`.
    pub(super) fn configuration(mut report: Box<Report>) -> Self {
        report.problems.retain(Problem::is_error);
        Self::Configuration(report)
    }

    /// A start-up task that did not come back.
    pub(super) fn panicked(error: &tokio::task::JoinError) -> Self {
        Self::Broken(error.to_string())
    }
}
