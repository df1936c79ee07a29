//! Lectern's operator.

use clap::Parser;
use jiff::Timestamp;
use kube::Client;
use lectern_operator::args::{Args, Command};
use lectern_operator::leader::{self, Election, Identity};
use lectern_operator::metrics::Metrics;
use lectern_operator::reports::{self, Change, Duty, Reports};
use lectern_operator::{check, controllers, redrive, release, standby, trust, view_link};
use lectern_podkit::health::{self, Readiness};
use lectern_podkit::tls::PeerTls;
use lectern_podkit::{CancellationToken, Task, Tasks, shutdown, telemetry};
use prometheus_client::registry::Registry;
use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::watch;

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
    // `done` says that nobody here writes any more, so that the Lease can be let go.
    let (election, hearing, done) = (Election::default(), CancellationToken::new(), CancellationToken::new());
    let (heard, changes) = Reports::new();
    heard.turn_to(Duty::StandBy);
    let (wanted, folder) = (args.certificate(), args.tls_dir.clone());

    let mut tasks = Tasks::new(stop.clone());
    tasks.spawn("health", health::serve(args.health_listen, readiness.clone(), registry, stop.clone()));
    let certificate = (election.leading.clone(), hearing.clone());
    tasks.spawn("certificate", trust::keep(client.clone(), wanted, folder.clone(), certificate, stop.clone()));
    tasks.spawn("reports", hear((args.report_listen, folder), hearing.clone(), heard.clone(), metrics.clone(), stop.clone()));
    tasks.spawn("leader", leader::run(client.clone(), me, election.clone(), done.clone()));
    let work = tokio::spawn(lead(client, args, metrics, (heard, changes), (election, hearing), (stop, done)));
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

/// Takes reports, once there is a certificate to be shown to who brings them.
fn hear(
    (at, folder): (SocketAddr, PathBuf),
    certificate: CancellationToken,
    heard: Arc<Reports>,
    metrics: Metrics,
    stop: CancellationToken,
) -> Task<anyhow::Error> {
    Box::pin(async move {
        if stop.run_until_cancelled(certificate.cancelled()).await.is_none() {
            return Ok(());
        }
        let peers = PeerTls::load(&folder, "").await?;
        Ok(reports::serve(at, peers, heard, metrics, stop).await?)
    })
}

/// Stands by, and does what only the leader does from when it leads.
async fn lead(
    client: Client,
    args: Args,
    metrics: Metrics,
    (heard, changes): (Arc<Reports>, UnboundedReceiver<Change>),
    (election, hearing): (Election, CancellationToken),
    (stop, done): (CancellationToken, CancellationToken),
) -> anyhow::Result<()> {
    let _done = done.drop_guard();
    let standing_by = standby::run(&heard, changes, election.lease.subscribe(), &metrics, &election.leading);
    let Some(changes) = stop.run_until_cancelled(standing_by).await else { return Ok(()) };
    let mut tasks = Tasks::new(stop.clone());
    tasks.spawn("standbys", tell_of_others(heard.clone(), election.others.subscribe(), args.report_listen.port(), stop.clone()));
    let keeper = args.keeper();
    if let Err(error) = trust::turn::turn(&client, &keeper, Timestamp::now()).await {
        tracing::warn!(%error, "the CA could not be looked after"); // one that is there serves meanwhile
    }
    tasks.spawn("ca", trust::turn::run(client.clone(), keeper, stop.clone()));
    if let Some(wanted) = args.gateway_certificate() {
        tasks.spawn("trust", trust::run(client.clone(), wanted, stop.clone()));
    }
    // To whom nobody can report, all pods seem silent.
    if stop.run_until_cancelled(hearing.cancelled()).await.is_none() {
        return tasks.join().await;
    }
    controllers::start(client, &args, heard, changes, metrics, &mut tasks);
    tasks.join().await
}

/// Has pods told where the operators are that stand by: all that serve on `port` what we do.
fn tell_of_others(
    heard: Arc<Reports>,
    mut others: watch::Receiver<Option<Vec<IpAddr>>>,
    port: u16,
    stop: CancellationToken,
) -> Task<Infallible> {
    Box::pin(async move {
        loop {
            let known = others.borrow_and_update().clone();
            heard.turn_to(Duty::Lead { standbys: known.map(|ips| ips.into_iter().map(|ip| SocketAddr::new(ip, port)).collect()) });
            if !matches!(stop.run_until_cancelled(others.changed()).await, Some(Ok(()))) {
                return Ok(());
            }
        }
    })
}
