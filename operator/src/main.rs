//! Lectern's operator.

use clap::Parser;
use lectern_operator::args::Args;
use lectern_operator::leader::{self, Identity};
use lectern_operator::metrics::Metrics;
use lectern_operator::reports::{self, Reports};
use lectern_operator::{controllers, trust};
use lectern_podkit::health::{self, Readiness};
use lectern_podkit::{CancellationToken, Tasks, shutdown, telemetry};
use prometheus_client::registry::Registry;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    telemetry::init(&args.telemetry)?;
    let mut tasks = Tasks::new(shutdown::on_signal());
    let client = kube::Client::try_default().await?;
    let (readiness, mut registry) = (Readiness::default(), Registry::default());
    let metrics = Metrics::registered(&mut registry);

    // The Lease is let go after the controllers have stopped: nobody leads while we still write.
    let (leading, idle) = (CancellationToken::new(), CancellationToken::new());
    let me = Identity { pod: args.pod_name.clone(), namespace: args.pod_namespace.clone() };
    tasks.spawn("health", health::serve(args.health_listen, readiness.clone(), registry, tasks.stop()));
    tasks.spawn("leader", leader::run(client.clone(), me, leading.clone(), idle.clone()));
    // A replica that waits for the Lease is ready: ready to take over.
    readiness.ready();

    let mut work = Tasks::new(tasks.stop());
    if tasks.stop().run_until_cancelled(leading.cancelled()).await.is_some() {
        let (heard, changes) = Reports::new();
        work.spawn("reports", reports::serve(args.report_listen, heard.clone(), metrics.clone(), work.stop()));
        if let Some(wanted) = args.gateway_certificate() {
            work.spawn("trust", trust::run(client.clone(), wanted, work.stop()));
        }
        controllers::start(client, &args, heard, changes, metrics, &mut work);
    }
    let worked = work.join().await;
    idle.cancel();
    tasks.join().await.and(worked)
}
