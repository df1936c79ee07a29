//! The size of a picture, as the codec's own headers give it: what a player makes its window by before it decodes.

use super::Coding;
use crate::av1::{self, Av1Config};
use crate::avc::AvcConfig;
use crate::hevc::HevcConfig;
use crate::vp9;
use lectern_contract::feed::{AccessUnit, Codec};

/// Width and height in pixels; `None` where they are not to be found.
pub(super) fn size(coding: &Coding, first: Option<&AccessUnit>) -> Option<(u16, u16)> {
    let payload = first.map(|unit| &unit.payload[..]).unwrap_or_default();
    let (width, height) = match coding.codec {
        Codec::H264 => AvcConfig::parse(&coding.config).ok()?.picture().ok().map(|sps| (sps.width, sps.height)),
        Codec::Hevc => HevcConfig::parse(&coding.config).ok().map(|config| config.picture),
        Codec::Av1 => Av1Config::parse(&coding.config).ok().and_then(|config| config.picture).or_else(|| av1::look(payload).picture),
        Codec::Vp9 => vp9::look(payload).picture,
        _ => None,
    }?;
    Some((width.try_into().ok()?, height.try_into().ok()?))
}
