//! The benchmark `scale`: the operator beside an API server without nodes, with thousands of LiveStreams and a hundred shards that do nothing but
//! report. How fast streams are planned, what that costs in writes and memory, and how long a restart and a lost shard take. Everything runs on
//! this machine and shares its processors: etcd, the API server, MiniStack, the operator and this program.

mod audit;
mod control_plane;
mod figures;
mod load;
mod operator;
mod platform;
mod shards;
mod trials;
mod watched;

use anyhow::{Context as _, Result, bail};
use clap::Parser as _;
use figures::Figures;
use lectern_cloud::testing::Backend;
use lectern_e2e::settings;
use lectern_podkit::shutdown;
use std::time::Duration;

#[derive(Debug, Clone, clap::Parser)]
struct Args {
    /// LiveStreams.
    #[arg(long, default_value_t = 10_000)]
    streams: usize,
    /// Ingest shards of the pool.
    #[arg(long, default_value_t = 100)]
    shards: usize,
    /// LiveStreams created a second.
    #[arg(long, default_value_t = 50)]
    rate: u32,
    /// Seconds in which nothing happens and nothing may be written.
    #[arg(long, default_value_t = 600)]
    steady: u64,
}

#[tokio::main]
async fn main() -> Result<()> {
    let args = Args::parse();
    rustls::crypto::aws_lc_rs::default_provider().install_default().ok(); // somebody else's is as good
    let out = settings::out_folder("bench-scale");
    std::fs::remove_dir_all(&out).ok(); // there may be none
    std::fs::create_dir_all(&out)?;
    let folder = out.join("control-plane");
    let control_plane = control_plane::ControlPlane::start(&folder).await?;
    let cloud = Backend::ministack().await?;
    // Whoever stops it stops its processes, too.
    let stop = shutdown::on_signal();
    let result = stop.run_until_cancelled(run(&args, &control_plane, &cloud)).await.unwrap_or_else(|| bail!("stopped"));
    // etcd's files are large and tell nobody anything; the logs beside them stay.
    drop(control_plane);
    std::fs::remove_dir_all(folder.join("etcd")).ok();
    result.with_context(|| format!("logs are in {}", out.display()))
}

async fn run(args: &Args, control_plane: &control_plane::ControlPlane, cloud: &Backend) -> Result<()> {
    let client = control_plane.client().await?;
    platform::install(&client, args.shards, &cloud.endpoint()).await?;
    let mut operator = operator::Operator::start(control_plane, cloud, "lectern-operator-0").await?;
    operator.in_sync(Duration::from_secs(30)).await?;
    let fleet = shards::Fleet::start(&client, args.shards, &operator.reports_to(), &control_plane.folder).await?;
    let watched = watched::Watched::start(&client);
    let mut figures = Figures::default();

    eprintln!("creating {} LiveStreams, {} a second", args.streams, args.rate);
    let before = control_plane.audit()?;
    let spent = figures::Spent::now(control_plane, &operator)?;
    load::create(&client, args.streams, args.rate, &watched).await?;
    watched.until("all streams are planned", Duration::from_secs(120), |seen| seen.unplanned() == 0).await?;
    figures.planned(&watched, args.shards);
    figures.cpu(&figures::Spent::now(control_plane, &operator)?.since(&spent));
    // A pool counts its streams when it is looked at, twice a minute: the last of that is of the creations, too.
    trials::quiet(control_plane, Duration::from_secs(35)).await?;
    figures.writes(&control_plane.audit()?.since(&before), args.streams);

    eprintln!("nothing happens for {} s", args.steady);
    trials::steady(control_plane, &operator, args.steady, &mut figures).await?;
    figures.memory(&operator, &load::sizes(&client).await?)?;

    eprintln!("restarting the operator");
    trials::restarts(control_plane, cloud, &mut operator, &mut figures).await?;
    fleet.are_heard(&operator).await?;

    eprintln!("losing shards");
    trials::losses(control_plane, &client, &fleet, &watched, args.shards, &mut figures).await?;
    operator.stop().await?;
    figures.print(args);
    Ok(())
}
