//! What can happen, for how long, and what it may cost.

use super::stage::ANSWERED;
use crate::toxiproxy::Link;
use std::time::Duration;

/// How long what hangs, or is cut off, stays so.
const AWAY: Duration = Duration::from_secs(15);
/// How long two components do not hear each other.
const PARTED: Duration = Duration::from_secs(8);
/// How long a store or a queue gives trouble, and how long a store is away.
const TROUBLE: Duration = Duration::from_secs(30);
const STORE_AWAY: Duration = Duration::from_secs(60);
const STORE_LONG_AWAY: Duration = Duration::from_secs(180);
/// Less than the 5.5 s after its last heartbeat, which may be 2 s old, after which a transcoder that reaches neither S3 nor SQS stops.
const BOTH_AWAY: Duration = Duration::from_secs(3);
/// How long a node is without power.
const DARK: Duration = Duration::from_secs(30);
/// How long a link is bad.
const POOR: Duration = Duration::from_secs(15);
/// What it takes to replace a small pool's pods, about.
const REPLACED: Duration = Duration::from_secs(90);
/// What it takes a shard or an origin that is new to take part, about.
const RETURNED: Duration = Duration::from_secs(30);
/// How long a publisher stays away.
pub(super) const DROPPED: Duration = Duration::from_secs(3);

/// A link that toxiproxy stands in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// Between the publisher and the shards.
    Publisher,
    /// Between the player and the origins.
    Player,
    /// Between the pool and S3.
    Store,
    /// Between the pool and SQS.
    Queue,
    /// Between the transcoder and the owning shard.
    Feed,
    /// Between the origins and the transcoder.
    Push,
}

/// The shard that a publisher comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Door {
    /// The default pool's first.
    First,
    /// The one that owns the stream.
    Owner,
    /// One that does not, and sends on what comes to it.
    Another,
}

/// What of a pool is on the node that a fault strikes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnNode {
    /// The lecture's transcoder, and neither shards nor origins.
    Transcoder,
    /// Its transcoder, the shard that owns it, and one of two origins.
    All,
    /// One of two origins, and nothing else.
    Origin,
}

/// A fault, or planned work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Fault {
    /// Nothing at all: what the machine itself costs, to hold the others against.
    Nothing,
    /// `kubectl annotate … lectern.video/move=now`.
    Move,
    /// The transcoder's pod is deleted, as a drain does it.
    Drain,
    /// The owning shard's pod is deleted, as a drain does it.
    ShardDrain,
    /// Every shard's pod is replaced, one as soon as the one before is back, as an upgrade does it: the owner, which the publisher came to, goes last.
    ShardsReplaced,
    /// The pool's AWS keys are changed: all of its pods are replaced, one after the other.
    KeysChanged,
    /// `helm upgrade` with values that give every pod of the pool another template, under six lectures: all of their pods are replaced.
    ChartUpgraded,
    /// SIGKILL for the process that encodes.
    ChildKilled,
    /// SIGSTOP for the process that encodes, and SIGCONT 15 s later.
    ChildFrozen,
    /// SIGKILL for the pod's first process.
    SupervisorKilled,
    /// SIGSTOP for the pod's first process, and SIGCONT 15 s later.
    SupervisorFrozen,
    /// SIGSTOP for all of the transcoder's processes, and SIGCONT 15 s later.
    TranscoderFrozen,
    /// Nothing reaches the transcoder's pod and nothing leaves it, for 15 s.
    TranscoderCutOff,
    /// The transcoder's machine is gone without a word.
    TranscoderLost,
    /// `docker pause` of the transcoder's node, for 15 s.
    NodePaused,
    /// The transcoder's node loses its power, and boots 30 s later.
    NodeKilled,
    /// The same of a node on which the leading operator is, too.
    LeadersNodeKilled,
    /// The same of a node on which the owning shard and one of two origins are, too; the publisher comes back 3 s later.
    WholeNodeKilled,
    /// The same of a node on which of all the pool one of two origins is.
    OriginsNodeKilled,
    /// SIGSTOP for the owning shard, and SIGCONT 15 s later.
    ShardFrozen,
    /// SIGKILL for the owning shard, whose pod starts it again; the publisher comes back.
    ShardKilled,
    /// The owning shard's machine is gone without a word; the publisher comes back.
    ShardLost,
    /// SIGKILL for the origins, whose pods are gone then.
    OriginKilled,
    /// Of two origins each is killed so, the second once the first is replaced: the player is at one of them.
    EachOriginKilled,
    /// SIGSTOP for the origins, and SIGCONT 15 s later.
    OriginFrozen,
    /// SIGKILL for the operators, whose pods are gone then.
    OperatorKilled,
    /// SIGSTOP for the operators, and SIGCONT 15 s later.
    OperatorFrozen,
    /// The publisher's connection breaks, and it comes back 3 s later.
    PublisherDropped,
    /// Another publisher comes with the same key, and is heard in its place (`takeover: NewestWins`).
    PublisherDoubled,
    /// The publisher's clock jumps an hour ahead.
    PublisherJumps,
    /// All of the publisher's packets come 400 ms late, give or take 200, for 15 s.
    PublisherLate,
    /// The publisher's link carries less than it sends, for 15 s.
    PublisherThin,
    /// All of a student's packets come 400 ms late, give or take 200, for 15 s.
    PlayerLate,
    /// A student's link carries less than the best rendition takes and more than the least, for 15 s.
    PlayerThin,
    /// No packet between the publisher and the shards, for 8 s.
    PublisherFromShard,
    /// The same between players and the origins.
    PlayerFromOrigin,
    /// The same between the owning shard and the one that the publisher is connected to.
    ShardFromShard,
    /// The same between the owning shard and the transcoder.
    ShardFromTranscoder,
    /// The same between the transcoder and the origins.
    TranscoderFromOrigin,
    /// The same between the transcoder and the operators, which hear no reports.
    TranscoderFromOperator,
    /// The same between the owning shard and the operators.
    ShardFromOperator,
    /// The same between the origins and the operators.
    OriginFromOperator,
    /// The same between the operators and the Kubernetes API.
    OperatorFromApi,
    /// The same between the owning shard and the Kubernetes API, which tells it of routes.
    ShardFromApi,
    /// The same between the gateways, which schools ask for streams, and the Kubernetes API.
    GatewayFromApi,
    /// The same between the transcoder and the pool's others, which it is moved to.
    TranscoderFromTranscoder,
    /// The same between the owning shard, which keeps the original, and S3.
    ShardFromS3,
    /// The same between the transcoder and S3.
    TranscoderFromS3,
    /// The same between the transcoder and SQS.
    TranscoderFromSqs,
    /// The same between the origins and S3.
    OriginFromS3,
    /// The same between the operators and S3.
    OperatorFromS3,
    /// The same between the operators and SQS.
    OperatorFromSqs,
    /// One packet of twenty between the owning shard and the transcoder is lost, for 15 s.
    FeedLossy,
    /// The same between the transcoder and the origins.
    PushLossy,
    /// The same between the publisher and the shards.
    PublisherLossy,
    /// The same between players and the origins.
    PlayerLossy,
    /// The same between the transcoder and S3.
    S3Lossy,
    /// All packets between the owning shard and the transcoder come 400 ms late, give or take 200, for 15 s.
    FeedLate,
    /// Between the two less passes than the publisher sends, for 15 s.
    FeedThin,
    /// The same as of the feed between the transcoder and the origins, 400 ms give or take 200.
    PushLate,
    /// Between these less passes than the transcoder makes, for 15 s.
    PushThin,
    /// S3 breaks all connections, for 60 s.
    S3Away,
    /// The same for 180 s.
    S3LongAway,
    /// Each answer of S3 comes 2 s late, for 30 s.
    S3Slow,
    /// S3 refuses two of three requests with 503, for 30 s.
    S3Errors,
    /// The link to S3 adds 300 ms, give or take 100, in either direction, for 30 s.
    S3Late,
    /// The link to S3 carries 16 kB a second on each connection, for 30 s.
    S3Thin,
    /// S3 refuses all writes, as a bucket does whose quota is used up, for 30 s.
    S3Full,
    /// S3 takes the credentials for expired, for 30 s.
    S3Expired,
    /// S3 does what it is told and breaks every second connection before the answer, for 30 s.
    S3AnswersLost,
    /// SQS breaks all connections, for 30 s.
    SqsAway,
    /// Each answer of SQS comes 2 s late, for 30 s.
    SqsSlow,
    /// The link to SQS adds 300 ms, give or take 100, in either direction, for 30 s.
    SqsLate,
    /// SQS refuses two of three requests with 503, for 30 s.
    SqsErrors,
    /// SQS takes the credentials for expired, for 30 s.
    SqsExpired,
    /// SQS does what it is told and breaks every second connection before the answer, for 30 s: messages are sent twice.
    SqsAnswersLost,
    /// S3 and SQS are away together, for 3 s.
    S3AndSqsAway,
}

impl Fault {
    /// From when it strikes until it passes.
    pub const fn lasts(self) -> Duration {
        match self {
            Self::ChildFrozen
            | Self::SupervisorFrozen
            | Self::TranscoderFrozen
            | Self::TranscoderCutOff
            | Self::ShardFrozen
            | Self::OriginFrozen
            | Self::OperatorFrozen => AWAY,
            Self::NodePaused => AWAY,
            Self::NodeKilled | Self::LeadersNodeKilled | Self::OriginsNodeKilled => DARK,
            // And its publisher may have to wait for an answer.
            Self::WholeNodeKilled => DARK.saturating_add(ANSWERED),
            Self::KeysChanged | Self::ChartUpgraded => REPLACED,
            Self::ShardsReplaced | Self::EachOriginKilled => RETURNED,
            Self::PublisherJumps
            | Self::PublisherLate
            | Self::PublisherThin
            | Self::PlayerLate
            | Self::PlayerThin
            | Self::FeedLossy
            | Self::PushLossy
            | Self::PublisherLossy
            | Self::PlayerLossy
            | Self::S3Lossy
            | Self::FeedLate
            | Self::FeedThin
            | Self::PushLate
            | Self::PushThin => POOR,
            Self::ShardKilled | Self::ShardLost | Self::PublisherDropped => DROPPED,
            Self::PublisherFromShard
            | Self::PlayerFromOrigin
            | Self::ShardFromShard
            | Self::ShardFromTranscoder
            | Self::TranscoderFromOrigin
            | Self::TranscoderFromOperator
            | Self::ShardFromOperator
            | Self::OriginFromOperator
            | Self::OperatorFromApi
            | Self::ShardFromApi
            | Self::GatewayFromApi
            | Self::TranscoderFromTranscoder
            | Self::ShardFromS3
            | Self::TranscoderFromS3
            | Self::TranscoderFromSqs
            | Self::OriginFromS3
            | Self::OperatorFromS3
            | Self::OperatorFromSqs => PARTED,
            Self::S3Away => STORE_AWAY,
            Self::S3LongAway => STORE_LONG_AWAY,
            Self::S3Slow
            | Self::S3Errors
            | Self::S3AnswersLost
            | Self::S3Late
            | Self::S3Thin
            | Self::S3Full
            | Self::S3Expired
            | Self::SqsAway
            | Self::SqsSlow
            | Self::SqsLate
            | Self::SqsErrors
            | Self::SqsExpired
            | Self::SqsAnswersLost => TROUBLE,
            Self::S3AndSqsAway => BOTH_AWAY,
            Self::Nothing
            | Self::Move
            | Self::Drain
            | Self::ShardDrain
            | Self::ChildKilled
            | Self::SupervisorKilled
            | Self::TranscoderLost
            | Self::OriginKilled
            | Self::PublisherDoubled
            | Self::OperatorKilled => Duration::ZERO,
        }
    }

    /// Whether it is done to what only a pool of the suite's own has: ways to S3 and SQS, a node, a second origin.
    pub const fn needs_a_pool(self) -> bool {
        self.needs_node().is_some()
            || self.troubles().is_some()
            || matches!(self.link(), Some((Way::Store | Way::Queue, _)))
            || matches!(
                self,
                Self::EachOriginKilled
                    | Self::KeysChanged
                    | Self::S3Lossy
                    | Self::ShardFromS3
                    | Self::TranscoderFromS3
                    | Self::TranscoderFromSqs
                    | Self::OriginFromS3
                    | Self::OperatorFromS3
                    | Self::OperatorFromSqs
            )
    }

    /// By which shard the publisher has to come, where it may not be any.
    pub const fn needs_a_door(self) -> Option<Door> {
        match self {
            Self::ChartUpgraded => Some(Door::First),
            Self::ShardsReplaced => Some(Door::Owner),
            Self::ShardFromShard => Some(Door::Another),
            _ => None,
        }
    }

    /// Of one that is done to a node, what has to be there.
    pub const fn needs_node(self) -> Option<OnNode> {
        match self {
            Self::NodePaused | Self::NodeKilled | Self::LeadersNodeKilled => Some(OnNode::Transcoder),
            Self::WholeNodeKilled => Some(OnNode::All),
            Self::OriginsNodeKilled => Some(OnNode::Origin),
            _ => None,
        }
    }

    /// The link that it makes bad, and how.
    pub const fn link(self) -> Option<(Way, Link)> {
        match self {
            Self::PublisherLate => Some((Way::Publisher, Link::Late(400, 200))),
            Self::PublisherThin => Some((Way::Publisher, Link::Thin(10))), // the lecture is some 20 kB a second
            Self::PlayerLate => Some((Way::Player, Link::Late(400, 200))),
            Self::PlayerThin => Some((Way::Player, Link::Thin(60))), // 360p is some 100 kB a second, 180p 31
            Self::S3Late => Some((Way::Store, Link::Late(300, 100))),
            Self::SqsLate => Some((Way::Queue, Link::Late(300, 100))),
            Self::FeedLate => Some((Way::Feed, Link::Late(400, 200))),
            Self::FeedThin => Some((Way::Feed, Link::Thin(10))), // as of the publisher
            Self::PushLate => Some((Way::Push, Link::Late(400, 200))),
            Self::PushThin => Some((Way::Push, Link::Thin(60))), // as of a player, and the transcoder makes both pictures
            Self::S3Thin => Some((Way::Store, Link::Thin(16))),
            _ => None,
        }
    }

    /// The longest that a player may show no new picture, in milliseconds; `None`: no bar.
    pub const fn longest_stall(self) -> Option<f64> {
        match self {
            Self::ChildKilled | Self::ChildFrozen => Some(2_000.0), // a GOP
            Self::SupervisorKilled
            | Self::TranscoderFrozen
            | Self::TranscoderCutOff
            | Self::TranscoderLost
            | Self::NodePaused
            | Self::NodeKilled
            | Self::LeadersNodeKilled
            | Self::WholeNodeKilled
            | Self::OriginsNodeKilled => Some(6_000.0),
            Self::ShardFrozen
            | Self::ShardKilled
            | Self::ShardLost
            | Self::OriginKilled
            | Self::EachOriginKilled
            | Self::OriginFrozen
            | Self::PublisherDropped
            | Self::PublisherDoubled
            | Self::PublisherJumps
            | Self::PublisherLate
            | Self::PublisherThin
            | Self::PlayerLate
            | Self::PlayerThin
            | Self::FeedLossy
            | Self::PushLossy
            | Self::PublisherLossy
            | Self::PlayerLossy
            | Self::FeedLate
            | Self::FeedThin
            | Self::PushLate
            | Self::PushThin
            | Self::PublisherFromShard
            | Self::PlayerFromOrigin
            | Self::ShardFromShard
            | Self::ShardFromTranscoder
            | Self::TranscoderFromOrigin => None,
            // Planned, or nothing that media passes through: some pictures late on a busy machine, and no wait for data.
            _ => Some(200.0),
        }
    }
}
