//! The transcoder pod: takes live jobs off the queue, runs each in a child process, publishes what comes out; in idle slots what was too dear to encode live.

use clap::{Parser, Subcommand};
use lectern_podkit::shutdown;
use lectern_podkit::telemetry::{self, TelemetryArgs};
use lectern_transcoder_pod::{archive, child, supervise};

/// Lectern's transcoder.
#[derive(Debug, Parser)]
#[command(name = "lectern-transcoder", version)]
struct Args {
    #[command(flatten)]
    telemetry: TelemetryArgs,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Takes jobs and runs a child process for each: what the pod does.
    Supervise(Box<supervise::SuperviseArgs>),
    /// Does one job, given as JSON on standard input; the supervisor starts it.
    #[command(hide = true)]
    Child,
    /// Does one job of the archive's, in the same way.
    #[command(hide = true)]
    Archive,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    telemetry::init(&args.telemetry)?;
    let stop = shutdown::on_signal();
    match args.command {
        Command::Supervise(supervisor) => supervise::run(*supervisor, args.telemetry, stop).await,
        Command::Child => Ok(child::main(stop).await?),
        Command::Archive => Ok(archive::main().await?),
    }
}
