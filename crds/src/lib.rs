//! The resource types of `lectern.video/v1alpha1`. `crds/generated/*.yaml` is made of them by `make generate`.

// Two printer columns of one type are no mistake.
#![allow(clippy::duplicated_attributes)]

mod ladder;
mod livestream;
mod pool;
mod route;
mod stream_status;

pub use ladder::{AudioSpec, EncodingLadder, EncodingLadderSpec, RenditionCodec, RenditionSpec};
pub use livestream::{
    LadderChoice, Latency, LiveStream, LiveStreamSpec, Reconnect, Record, Retention, RtmpSource, RtspSource, SecretName, Slate, Source,
    StreamKey,
};
pub use pool::{
    Amount, BucketSpec, Encoder, Exposure, IngestSpec, OriginSpec, Passthrough, PodResources, PoolImages, PoolStatus, QueueSpec, RtmpsSpec,
    SlatePicture, StreamPool, StreamPoolSpec, TranscoderBudget, TranscoderSpec,
};
pub use route::{Route, RouteSlice, RouteSliceSpec, RtspTransport, Takeover, cameras_secret};
pub use stream_status::{
    DispatchStatus, IngestStatus, LiveStatus, LiveStreamStatus, PlacementStatus, PlaybackStatus, ReceivedStatus, RecordingStatus,
};

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
