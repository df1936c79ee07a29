//! The few things that ffmpeg-next has no safe call for.
#![allow(unsafe_code)]

use bytes::Bytes;
use ffmpeg_next::codec::Context;
use ffmpeg_next::ffi::{AV_INPUT_BUFFER_PADDING_SIZE, av_channel_layout_default, av_frame_ref, av_mallocz};
use ffmpeg_next::{Error, frame};
use lectern_media::captions::{Triplet, triplets};
use lectern_media::pcm::PcmConfig;

/// Gives a context that is not open yet its out-of-band parameters.
pub fn set_extradata(context: &mut Context, data: &[u8]) -> Result<(), Error> {
    let size = i32::try_from(data.len()).map_err(|_| Error::InvalidData)?;
    // SAFETY: the block is `size` plus the padding that libav reads over the end, zeroed by av_mallocz; exactly `size`
    // bytes are copied into it. The context owns it from here and frees it with av_free (avcodec_free_context); a fresh
    // context has none to leak.
    unsafe {
        let block = av_mallocz(data.len() + AV_INPUT_BUFFER_PADDING_SIZE as usize).cast::<u8>();
        if block.is_null() {
            return Err(Error::Other { errno: ffmpeg_next::error::ENOMEM });
        }
        std::ptr::copy_nonoverlapping(data.as_ptr(), block, data.len());
        let raw = context.as_mut_ptr();
        (*raw).extradata = block;
        (*raw).extradata_size = size;
    }
    Ok(())
}

/// Tells a decoder that is not open yet what sound it will get, where the sound itself does not say.
pub fn set_sound_shape(context: &mut Context, shape: PcmConfig) {
    // SAFETY: plain fields of a context that this function borrows alone; a fresh context's layout is empty and owns
    // nothing that av_channel_layout_default would leak by overwriting it.
    unsafe {
        let raw = context.as_mut_ptr();
        (*raw).sample_rate = i32::try_from(shape.sample_rate).unwrap_or(i32::MAX);
        av_channel_layout_default(&raw mut (*raw).ch_layout, i32::from(shape.channels));
    }
}

/// The out-of-band parameters of an open encoder; empty where it has none.
pub fn extradata(context: &Context) -> Bytes {
    // SAFETY: libav keeps `extradata_size` bytes at `extradata`, or null; both are read while `context` is borrowed, and
    // the bytes are copied.
    unsafe {
        let raw = context.as_ptr();
        if (*raw).extradata.is_null() {
            return Bytes::new();
        }
        let size = usize::try_from((*raw).extradata_size).unwrap_or_default();
        Bytes::copy_from_slice(std::slice::from_raw_parts((*raw).extradata, size))
    }
}

/// Tells an encoder that is not open yet its bit rate's ceiling and buffer, in bits (a second).
pub fn set_rate_control(context: &mut Context, max_rate: u64, buffer: u64) {
    // SAFETY: plain fields of a context that this function borrows alone.
    unsafe {
        let raw = context.as_mut_ptr();
        (*raw).rc_max_rate = i64::try_from(max_rate).unwrap_or(i64::MAX);
        (*raw).rc_buffer_size = i32::try_from(buffer).unwrap_or(i32::MAX);
        (*raw).rc_initial_buffer_occupancy = (*raw).rc_buffer_size / 10 * 9;
    }
}

/// Tells a decoder that is not open yet how many pixels a picture may have.
pub fn limit_pixels(context: &mut Context, most: i64) {
    // SAFETY: a plain field of a context that this function borrows alone.
    unsafe { (*context.as_mut_ptr()).max_pixels = most }
}

/// Another handle on the same pixels, with stamps and picture type of its own.
pub fn share(picture: &frame::Video) -> Result<frame::Video, Error> {
    let mut shared = frame::Video::empty();
    // SAFETY: both frames are valid; `shared` is empty, as av_frame_ref wants. It takes a counted reference to the
    // buffers, so they outlive whichever handle goes first.
    match unsafe { av_frame_ref(shared.as_mut_ptr(), picture.as_ptr()) } {
        0 => Ok(shared),
        code => Err(Error::from(code)),
    }
}

/// The captions that a decoded picture came with.
pub fn captions(picture: &frame::Video) -> Vec<Triplet> {
    picture.side_data(frame::side_data::Type::A53CC).map(|data| triplets(data.data()).collect()).unwrap_or_default()
}

/// Whether a picture is to be shown rotated or mirrored.
pub fn is_turned(picture: &frame::Video) -> bool {
    picture.side_data(frame::side_data::Type::DisplayMatrix).is_some()
}

/// The field of an interlaced picture that is shown first, as a picture of half the height on the same pixels.
pub fn first_field(picture: &frame::Video) -> Result<frame::Video, Error> {
    let mut field = share(picture)?;
    // SAFETY: `field` is a handle of its own on counted buffers. Each plane is read from its first or second line on, every other line, for
    // half as many lines, rounded down: all of them lines of the picture. Planes that are not there have null data and stay so.
    unsafe {
        let raw = field.as_mut_ptr();
        let second = (*raw).height > 1 && !picture.is_top_first();
        for plane in 0..(*raw).linesize.len() {
            if second && !(*raw).data[plane].is_null() {
                (*raw).data[plane] = (*raw).data[plane].offset((*raw).linesize[plane] as isize);
            }
            (*raw).linesize[plane] *= 2;
        }
        (*raw).height /= 2;
    }
    Ok(field)
}
