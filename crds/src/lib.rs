//! The resource types of `lectern.video/v1alpha1`. `crds/generated/*.yaml` is made of them by `make generate`.

// Two printer columns of one type are no mistake.
#![allow(clippy::duplicated_attributes)]

mod ladder;
mod livestream;
mod pool;
mod route;
mod scheduling;
mod stream_status;
mod transcoders;

pub use ladder::{AudioSpec, EncodingLadder, EncodingLadderSpec, RenditionCodec, RenditionSpec, When};
pub use livestream::{
    LadderChoice, Latency, LiveStream, LiveStreamSpec, Reconnect, Record, Retention, RtmpSource, RtspSource, Schedule, SecretName, Slate,
    Source, StreamKey, Viewing,
};
pub use pool::{
    BucketSpec, Exposure, IngestSpec, OriginAutoscale, OriginSpec, OriginTlsSpec, PoolImages, PoolStatus, QueueSpec, ROTATE_VIEWING_KEY,
    RtmpsSpec, ShardCapacity, StreamPool, StreamPoolSpec, Tenant, viewing_secret,
};
pub use route::{Route, RouteSlice, RouteSliceSpec, RtspTransport, Takeover, cameras_secret};
pub use scheduling::{Amount, PodResources, Scheduling};
pub use stream_status::{
    DispatchStatus, IngestStatus, LiveStatus, LiveStreamStatus, PlacementStatus, PlaybackStatus, ReceivedStatus, RecordingStatus,
};
pub use transcoders::{DEFAULT_CLASS, Encoder, NamedClass, Passthrough, SlatePicture, TranscoderBudget, TranscoderClass, TranscoderSpec};

/// The API group.
pub const GROUP: &str = "lectern.video";
/// The label on everything that the operator makes: the pool's name.
pub const POOL_LABEL: &str = "lectern.video/pool";
/// The label on everything that the operator makes for one LiveStream: its name.
pub const STREAM_LABEL: &str = "lectern.video/stream";
/// The pool that a LiveStream gets when it names none.
pub const DEFAULT_POOL: &str = "default";
/// The ladder that a LiveStream gets when it names none.
pub const DEFAULT_LADDER: &str = "light";

/// Every CustomResourceDefinition, in the order in which they are written to `crds/generated/`.
pub fn all() -> Vec<k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition> {
    use kube::CustomResourceExt;
    vec![LiveStream::crd(), StreamPool::crd(), EncodingLadder::crd(), RouteSlice::crd()]
}
