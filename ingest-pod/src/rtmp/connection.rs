//! One RTMP connection, from the handshake to its end: a task that sets it up, hands it to the pump or to the stream's owner,
//! and moves it when the stream moves.
//!
//! A task is as large as its largest state, and publishers are many that all wait in a small one: the others are boxed.

use super::handshake::{HandshakeFailure, shake};
use super::link::Link;
use super::peer::{End, Peer};
use super::pump::Parting;
use super::session::{self, Session};
use super::sink::{Sink, SinkError};
use super::wire::Wire;
use super::{Context, SETUP};
use crate::gate::Pass;
use crate::metrics::RefusedReason;
use crate::stream::PublishError;
use rustls::ServerConfig;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

/// Serves a connection to its end. `tls`: it begins with a TLS handshake.
pub(super) async fn serve(socket: TcpStream, remote: SocketAddr, mut pass: Pass, context: Arc<Context>, tls: Option<Arc<ServerConfig>>) {
    let deadline = Instant::now() + SETUP;
    let opened = async {
        let mut wire = Wire::new(tls).map_err(|error| HandshakeFailure::Io(io::Error::other(error)))?;
        let early = Box::pin(shake(&socket, &mut wire)).await?;
        Ok::<_, HandshakeFailure>((wire, early))
    };
    let (wire, early) = match timeout_at(deadline, opened).await.unwrap_or(Err(HandshakeFailure::Slow)) {
        Ok(opened) => opened,
        Err(failure) => {
            if failure.is_hostile() {
                pass.failed(std::time::Instant::now());
                context.shard.metrics().refuse(RefusedReason::Protocol);
            }
            return tracing::debug!(%remote, error = %failure, "no RTMP handshake");
        }
    };
    let link = Link::new(socket, Peer { remote, wire, session: Session::new(session::Limits::default()), early });
    let (link, end) = run(link, deadline, &mut pass, &context).await;
    note(&end, remote, &pass, &context);
    if let Some(link) = link {
        Box::pin(link.end(&end)).await;
    }
}

/// Serves a peer past its handshake; gives back what is left of the connection.
async fn run(mut link: Link, mut deadline: Instant, pass: &mut Pass, context: &Context) -> (Option<Link>, End) {
    loop {
        let (key, asked, mut sink) = match Box::pin(set_up(&mut link, deadline, context)).await {
            Ok(set_up) => set_up,
            Err(end) => return (Some(link), end),
        };
        pass.publishes(true);
        loop {
            let (back, parting) = match sink {
                Sink::Here(publication) => Box::pin(link.pumped(&context.pump, *publication)).await,
                Sink::Elsewhere { forward, _counted } => Box::pin(link.relayed(*forward, context.shard.draining())).await,
            };
            let Some(back) = back else { return (None, End::Left) };
            link = back;
            let end = match parting {
                Parting::Unpublished => break,
                // The stream has moved, or its owner is gone: the publisher stays, and its media takes another way.
                Parting::Closing(closing) if closing.is_a_move() => None,
                Parting::End(End::TurnedAway(SinkError::Relay(error))) if error.is_passing() => {
                    tracing::info!(remote = %link.remote(), %error, "the way to the stream's owner is lost; looking for another");
                    None
                }
                Parting::Closing(closing) => Some(PublishError::Closed(closing).into()),
                Parting::End(end) => Some(end),
            };
            if let Some(end) = end {
                return (Some(link), end);
            }
            sink = match Box::pin(open(&link, &key, asked, context)).await {
                Ok(sink) => sink,
                Err(end) => return (Some(link), end),
            };
        }
        pass.publishes(false);
        deadline = Instant::now() + SETUP;
    }
}

/// Waits for a publish command, and accepts it; its key, and when it came.
async fn set_up(link: &mut Link, deadline: Instant, context: &Context) -> Result<(String, Instant, Sink), End> {
    let (key, asked) = (link.publish_requested(deadline).await?, Instant::now());
    let sink = open(link, &key, asked, context).await?;
    link.accept_publish()?;
    Ok((key, asked, sink))
}

async fn open(link: &Link, key: &str, asked: Instant, context: &Context) -> Result<Sink, End> {
    Ok(Sink::open(&context.shard, &context.owners, key, &link.remote().to_string(), asked).await?)
}

/// Writes down how a connection ended.
fn note(end: &End, remote: SocketAddr, pass: &Pass, context: &Context) {
    let metrics = context.shard.metrics();
    let now = std::time::Instant::now();
    match end {
        End::TurnedAway(error) => {
            if error.reason() == RefusedReason::UnknownKey {
                pass.failed(now);
            }
            metrics.refuse(error.reason());
            tracing::info!(%remote, why = %error, "a publisher is turned away");
        }
        End::Media(error) => {
            let closed = matches!(error, PublishError::Closed(_));
            metrics.refuse(if closed { RefusedReason::Ended } else { RefusedReason::Media });
            tracing::info!(%remote, why = %error, "a publisher is turned away");
        }
        End::Protocol(error) => {
            pass.failed(now);
            metrics.refuse(RefusedReason::Protocol);
            tracing::info!(%remote, %error, "a peer broke the protocol");
        }
        End::NeverPublished | End::Idle | End::Deaf => {
            metrics.refuse(RefusedReason::Slow);
            tracing::debug!(%remote, why = %end, "a connection is cut");
        }
        End::Left | End::Lost(_) => tracing::debug!(%remote, why = %end, "a connection ends"),
    }
}
