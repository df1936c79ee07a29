//! A child of the supervisor's: this program, asked to do one job.

use lectern_podkit::telemetry::{LogFormat, TelemetryArgs};
use serde::Serialize;
use std::io;
use std::process::Stdio;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

/// A child that has its job, which `command` does. The end of its input may ask it to stop; what it says comes line by line. It is killed when it is dropped.
pub async fn start(
    command: &str,
    given: &impl Serialize,
    log: &TelemetryArgs,
) -> io::Result<(Child, ChildStdin, Lines<BufReader<ChildStdout>>)> {
    let format = match log.log_format {
        LogFormat::Text => "text",
        LogFormat::Json => "json",
    };
    let mut child = Command::new(std::env::current_exe()?)
        .args(["--log", &log.log, "--log-format", format, command])
        .env("SVT_LOG", "1") // errors only: its banner is no line of a log
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .kill_on_drop(true)
        .spawn()?;
    let (Some(mut input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
        return Err(io::Error::other("the child has no pipes"));
    };
    let mut line = serde_json::to_vec(given)?;
    line.push(b'\n');
    input.write_all(&line).await?;
    Ok((child, input, BufReader::new(output).lines()))
}
