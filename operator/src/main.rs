//! Lectern's operator.

use clap::Parser;
use jiff::Timestamp;
use kube::Client;
use lectern_operator::args::{Args, Command};
use lectern_operator::leader::{self, Identity};
use lectern_operator::metrics::Metrics;
use lectern_operator::reports::{self, Reports};
use lectern_operator::{check, controllers, redrive, release, trust, view_link};
use lectern_podkit::health::{self, Readiness};
use lectern_podkit::tls::PeerTls;
use lectern_podkit::{CancellationToken, Tasks, shutdown, telemetry};
use prometheus_client::registry::Registry;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    telemetry::init(&args.telemetry)?;
    if let Some(command) = args.command {
        return other(command, &args.pod_namespace).await;
    }
    let stop = shutdown::on_signal();
    let client = Client::try_default().await?;
    let (readiness, mut registry) = (Readiness::default(), Registry::default());
    let metrics = Metrics::registered(&mut registry);
    let me = Identity { pod: args.pod_name.clone(), namespace: args.pod_namespace.clone() };
    // `leading` says that the Lease is ours; `done` that nobody here writes any more, so that it can be let go.
    let (leading, done) = (CancellationToken::new(), CancellationToken::new());

    let mut tasks = Tasks::new(stop.clone());
    tasks.spawn("health", health::serve(args.health_listen, readiness.clone(), registry, stop.clone()));
    tasks.spawn("leader", leader::run(client.clone(), me, leading.clone(), done.clone()));
    let work = tokio::spawn(lead(client, args, metrics, leading, stop, done));
    // A replica that waits for the Lease is ready, too: to take over.
    readiness.ready();

    // A lost Lease ends the process here, with whatever is in flight: it is somebody else's now.
    tasks.join().await?;
    work.await?
}

/// What is done once, beside operators or after them.
async fn other(command: Command, namespace: &str) -> anyhow::Result<()> {
    let client = Client::try_default().await?;
    match command {
        Command::Redrive(what) => redrive::run(what, client).await?,
        Command::Check(what) => check::run(&what, client, namespace).await?,
        Command::ViewLink(what) => view_link::run(&what, client, namespace).await?,
        Command::Release => release::run(client, namespace).await?,
    }
    Ok(())
}

/// What only the leader does, from when it leads.
async fn lead(
    client: Client,
    args: Args,
    metrics: Metrics,
    leading: CancellationToken,
    stop: CancellationToken,
    done: CancellationToken,
) -> anyhow::Result<()> {
    let _done = done.drop_guard();
    if stop.run_until_cancelled(leading.cancelled()).await.is_none() {
        return Ok(());
    }
    let mut tasks = Tasks::new(stop.clone());
    let (heard, changes) = Reports::new();
    let (wanted, folder) = (args.certificate(), args.tls_dir.clone());
    let keeper = args.keeper();
    if let Err(error) = trust::turn::turn(&client, &keeper, Timestamp::now()).await {
        tracing::warn!(%error, "the CA could not be looked after"); // one that is there serves meanwhile
    }
    trust::keep_in(&client, &wanted, &folder).await?;
    tasks.spawn("ca", trust::turn::run(client.clone(), keeper, stop.clone()));
    let peers = PeerTls::load(&folder, "").await?;
    tasks.spawn("certificate", trust::keep(client.clone(), wanted, folder, stop.clone()));
    tasks.spawn("reports", reports::serve(args.report_listen, peers, heard.clone(), metrics.clone(), stop.clone()));
    if let Some(wanted) = args.gateway_certificate() {
        tasks.spawn("trust", trust::run(client.clone(), wanted, stop));
    }
    controllers::start(client, &args, heard, changes, metrics, &mut tasks);
    tasks.join().await
}
