//! Logs: to standard error, one line an event.

use tracing_subscriber::EnvFilter;

/// How much is logged, and in what shape.
#[derive(Debug, Clone, clap::Args)]
pub struct TelemetryArgs {
    /// What is logged, in the syntax of tracing's EnvFilter: `info`, `lectern_operator=debug,info`.
    #[arg(long, env = "LECTERN_LOG", default_value = "info")]
    pub log: String,
    /// One JSON object a line, or text for people.
    #[arg(long, env = "LECTERN_LOG_FORMAT", value_enum, default_value = "text")]
    pub log_format: LogFormat,
}

/// The shape of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// For collectors.
    Json,
}

/// Why logging cannot start.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter does not parse.
    #[error("--log {filter:?} is no filter: {source}")]
    Filter {
        /// As given.
        filter: String,
        /// What is wrong with it.
        #[source]
        source: tracing_subscriber::filter::ParseError,
    },
}

/// Starts logging; the first call in a process wins.
pub fn init(args: &TelemetryArgs) -> Result<(), TelemetryError> {
    let filter = EnvFilter::try_new(&args.log).map_err(|source| TelemetryError::Filter { filter: args.log.clone(), source })?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false);
    // A second call finds a subscriber already there (tests in one process): that one stays.
    let _ = match args.log_format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().try_init(),
    };
    Ok(())
}
