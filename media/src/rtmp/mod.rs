//! RTMP as it comes from the internet: chunks, AMF0 and AMF3, and the messages made of them. The handshake is not here.
//!
//! Sources: Adobe's "RTMP specification 1.0" (cited as RTMP), "AMF 0" and "AMF 3" file format specifications, Enhanced RTMP
//! v2 by the Veovera Software Organization (cited as E-RTMP v2), and the habits of the publishers that exist, each told where
//! it is provided for. Nothing here panics, recurses without a bound, or allocates what a peer merely claims.

pub mod amf;
pub mod amf0;
pub mod amf3;
pub mod chunk;
pub mod message;
pub mod writer;

#[cfg(test)]
mod tests;
