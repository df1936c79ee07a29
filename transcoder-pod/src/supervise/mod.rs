//! The pod: takes jobs off the queue while it has free slots, and minds a child process for each.

mod archive;
mod board;
mod budget;
mod heart;
mod process;
mod receive;
mod slot;

use crate::engine::Backend;
use archive::Archives;
use board::Board;
use budget::Purse;
use lectern_cloud::{BucketAt, Objects, Queue, QueueAt};
use lectern_contract::cost::{Budget, PixelRate};
use lectern_podkit::health::{self, Readiness};
use lectern_podkit::telemetry::TelemetryArgs;
use lectern_podkit::tls::PeerTlsArgs;
use lectern_podkit::{PodArgs, Tasks, report};
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use slot::Slots;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio_util::sync::CancellationToken;

/// How long a message stays hidden without a heartbeat: how long a dead pod's job waits for another.
pub const VISIBILITY: Duration = Duration::from_secs(6);
/// How often the message of a running job is hidden anew.
pub const HEARTBEAT: Duration = Duration::from_secs(2);

/// The pod's settings.
#[derive(Debug, Clone, clap::Args)]
pub struct SuperviseArgs {
    #[command(flatten)]
    pod: PodArgs,
    #[command(flatten)]
    peer_tls: PeerTlsArgs,
    /// Jobs that the pod can do at a time.
    #[arg(long, env = "LECTERN_SLOTS", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    slots: u32,
    /// Millions of pixels a second of H.264 that the pod can encode in all; each job costs what its ladder does. Unless given only the slots
    /// are counted.
    #[arg(long, env = "LECTERN_MEGAPIXELS_PER_SECOND")]
    megapixels_per_second: Option<u64>,
    /// Encoding sessions that the pod's GPU allows (8 on consumer cards).
    #[arg(long, env = "LECTERN_GPU_SESSIONS")]
    gpu_sessions: Option<u32>,
    /// MiB of the GPU's memory that encoding may take.
    #[arg(long, env = "LECTERN_GPU_MEMORY_MIB")]
    gpu_memory_mib: Option<u64>,
    /// What encodes H.264 and HEVC.
    #[arg(long, env = "LECTERN_ENCODER", value_enum, default_value_t)]
    encoder: Backend,
    /// Whether a source that is what a rendition is to be (H.264, size, rate, keyframes, bit rate) is passed on as that rendition.
    #[arg(long, env = "LECTERN_PASSTHROUGH", action = clap::ArgAction::Set, default_value_t = true)]
    passthrough: bool,
    /// MiB of segments of each lecture that may wait for S3 while it is slow or away; what is more than that is given up, the oldest first. Unless given: 256, or three
    /// and a half minutes of its ladder where that is more.
    #[arg(long, env = "LECTERN_BACKLOG_MIB", value_parser = clap::value_parser!(u32).range(16..=65_536))]
    backlog_mib: Option<u32>,
    /// A PNG or JPEG to be shown while nothing comes from the lecturer, instead of a card with the title.
    #[arg(long, env = "LECTERN_SLATE_PICTURE")]
    slate_picture: Option<PathBuf>,
    /// The bucket that the runs' objects go to.
    #[arg(long, env = "LECTERN_BUCKET")]
    bucket: String,
    /// Its region.
    #[arg(long, env = "LECTERN_BUCKET_REGION", default_value = "us-east-1")]
    bucket_region: String,
    /// Its server's URL; without it, AWS.
    #[arg(long, env = "LECTERN_BUCKET_ENDPOINT")]
    bucket_endpoint: Option<String>,
    /// The queue that jobs come from.
    #[arg(long, env = "LECTERN_QUEUE")]
    queue: String,
    /// Its region.
    #[arg(long, env = "LECTERN_QUEUE_REGION", default_value = "us-east-1")]
    queue_region: String,
    /// Its server's URL; without it, AWS.
    #[arg(long, env = "LECTERN_QUEUE_ENDPOINT")]
    queue_endpoint: Option<String>,
    /// How long a job's message is kept before its run moves, with a message of its own: SQS lets one be hidden for 12 hours in all (SQS Developer Guide,
    /// visibility timeout). The default is 11 hours.
    #[arg(long, env = "LECTERN_RENEW_AFTER_SECONDS", default_value_t = 39_600, value_parser = clap::value_parser!(u32).range(5..=42_000))]
    renew_after_seconds: u32,
    /// Where health and metrics are served.
    #[arg(long, env = "LECTERN_HEALTH_LISTEN", default_value = "0.0.0.0:9090")]
    health_listen: SocketAddr,
}

/// Runs the pod until `stop`; its jobs are handed over before it returns.
///
/// # Errors
/// A task of the pod failed: the process is of no use any more.
pub fn run(args: SuperviseArgs, telemetry: TelemetryArgs, stop: CancellationToken) -> lectern_podkit::Task<anyhow::Error> {
    Box::pin(async move {
        let at = QueueAt::new(args.queue, args.queue_region, args.queue_endpoint);
        let (queue, archive) = (Queue::connect(&at).await, Queue::connect(&at.archive()).await);
        let bucket = BucketAt::new(args.bucket, args.bucket_region, args.bucket_endpoint);
        let (readiness, board) = (Readiness::default(), Board::default());
        let budget = Budget {
            pixels: args.megapixels_per_second.map(PixelRate::from_mega),
            gpu_sessions: args.gpu_sessions,
            gpu_memory_mib: args.gpu_memory_mib,
        };
        let purse = Purse::new(args.encoder.into(), budget);
        let mut registry = Registry::with_prefix("lectern_transcoder");
        let busy = Gauge::<i64>::default();
        registry.register("busy_slots", "Jobs under way", busy.clone());
        registry.register("slots", "Jobs that the pod can do at a time", constant(args.slots.into()));
        let taken = Gauge::<i64>::default();
        registry.register("taken_pixels", "Pixels a second of H.264 that the jobs under way cost", taken.clone());
        let archiving = Gauge::<i64>::default();
        registry.register("archive_jobs", "Jobs of the archive's under way: what was too dear to encode live", archiving.clone());
        let ages = Histogram::new(exponential_buckets(0.05, 2.0, 14));
        registry.register("job_age_seconds", "How old jobs are when they are taken off the queue", ages.clone());
        if let Some(pixels) = budget.pixels {
            let budget = constant(i64::try_from(pixels.0).unwrap_or(i64::MAX));
            registry.register("budget_pixels", "Pixels a second of H.264 that the pod has for jobs", budget);
        }
        let mut tasks = Tasks::new(stop.clone());
        tasks.spawn("health", health::serve(args.health_listen, readiness.clone(), registry, stop.clone()));
        // Children read it themselves; a pod that has none yet takes no jobs.
        let Some(peers) = stop.run_until_cancelled(args.peer_tls.when_there(&args.pod.pool, &readiness)).await else {
            return tasks.join().await;
        };
        let (objects, live) = (Objects::connect(&bucket).await, watch::Sender::new(0));
        let archives = Archives {
            archive,
            bucket: bucket.clone(),
            objects: objects.clone(),
            slate_picture: args.slate_picture.clone(),
            live: live.subscribe(),
            slots: args.slots,
            busy: archiving,
            log: telemetry.clone(),
        };
        let ((give, given), taken_reports) = (mpsc::unbounded_channel(), watch::Sender::new(None));
        let slots = Slots {
            queue: queue.clone(),
            objects,
            bucket,
            reports: taken_reports.subscribe(),
            pod: args.pod.clone(),
            encoder: args.encoder,
            passthrough: args.passthrough,
            backlog_mib: args.backlog_mib,
            renew_after: Duration::from_secs(args.renew_after_seconds.into()),
            slate_picture: args.slate_picture,
            peer_tls_dir: args.peer_tls.peer_tls_dir,
            board: board.clone(),
            purse: purse.clone(),
            ages,
            numbers: AtomicU64::new(0),
            live,
            busy,
            taken,
            log: telemetry,
        };
        let (changed, slots, free) = (board.changed(), Arc::new(slots), Arc::new(Semaphore::new(args.slots as usize)));
        let answers = report::Answers { jobs: give, taken: taken_reports };
        tasks.spawn(
            "report",
            report::run(
                args.pod,
                peers,
                Arc::new(move |wants| board.role(args.slots, &purse, wants)),
                changed,
                Some(answers),
                stop.clone(),
            ),
        );
        tasks.spawn("jobs past the queue", receive::past_the_queue(given, slots.clone(), free.clone(), stop.clone()));
        tasks.spawn("the archive's jobs", archives.run(stop.clone()));
        tasks.spawn("jobs", receive::run(queue, slots, free, readiness, stop));
        tasks.join().await
    })
}

fn constant(value: i64) -> Gauge<i64> {
    let gauge = Gauge::default();
    gauge.set(value);
    gauge
}
