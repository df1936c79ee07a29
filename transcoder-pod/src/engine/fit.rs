//! Where a source's picture lies in a rendition's: as large as it can be in its own shape, in the middle, with bars around it.

/// A rectangle of a rendition's picture, in pixels; all four are even, so that it holds whole samples of chroma (4:2:0).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fit {
    pub left: u32,
    pub top: u32,
    pub width: u32,
    pub height: u32,
}

/// Shapes that differ by less than a fiftieth are taken as equal: nobody sees it, and 854x480 is meant to be 16:9.
const ALIKE: u64 = 50;

impl Fit {
    /// The place of a picture of `source` pixels, each of which is `pixel` wide and high (0 and 1 where that is unknown), in
    /// one of `room` pixels that are square. Sides are positive; those of `room` even.
    pub fn of(source: (u32, u32), pixel: (u32, u32), room: (u32, u32)) -> Self {
        let (wide, high) = if pixel.0 == 0 || pixel.1 == 0 { (1, 1) } else { pixel };
        // The source's shape is `across` to `down`; its sides are below 2^16, so all of this fits into 64 bits.
        let (across, down) = (u64::from(source.0) * u64::from(wide.min(1 << 15)), u64::from(source.1) * u64::from(high.min(1 << 15)));
        let (room_across, room_down) = (u64::from(room.0), u64::from(room.1));
        let whole = Self { left: 0, top: 0, width: room.0, height: room.1 };
        let (a, b) = (across * room_down, down * room_across);
        if a == 0 || b == 0 || a.abs_diff(b) * ALIKE < a.max(b) {
            return whole;
        }
        let even = |side: u64, most: u32| u32::try_from(side & !1).unwrap_or(u32::MAX).clamp(2, most.max(2));
        let middle = |room: u32, side: u32| (room.saturating_sub(side) / 2) & !1;
        if a > b {
            let height = even(room_across * down / across, room.1);
            Self { top: middle(room.1, height), height, ..whole }
        } else {
            let width = even(room_down * across / down, room.0);
            Self { left: middle(room.0, width), width, ..whole }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_keep_their_shape() {
        let fit = |source, pixel| {
            let Fit { left, top, width, height } = Fit::of(source, pixel, (320, 180));
            (left, top, width, height)
        };
        assert_eq!(fit((1920, 1080), (1, 1)), (0, 0, 320, 180));
        assert_eq!(fit((854, 480), (0, 1)), (0, 0, 320, 180), "nearly 16:9 is 16:9");
        assert_eq!(fit((640, 480), (1, 1)), (40, 0, 240, 180), "4:3 has bars at its sides");
        assert_eq!(fit((1080, 1920), (1, 1)), (110, 0, 100, 180), "a phone that is held upright");
        assert_eq!(fit((2560, 1080), (1, 1)), (0, 22, 320, 134), "a wide screen has bars above and below");
        assert_eq!(fit((720, 576), (64, 45)), (0, 0, 320, 180), "PAL, anamorphic");
        assert_eq!(fit((720, 576), (16, 15)), (40, 0, 240, 180), "PAL, 4:3");
    }

    proptest::proptest! {
        #[test]
        fn a_place_lies_within_the_picture(w in 1u32..20_000, h in 1u32..20_000, sw in 0u32.., sh in 0u32.., rw in 1u32..4000, rh in 1u32..4000) {
            let room = (rw * 2, rh * 2);
            let fit = Fit::of((w, h), (sw, sh), room);
            assert!(fit.width >= 2 && fit.height >= 2 && fit.left + fit.width <= room.0 && fit.top + fit.height <= room.1, "{fit:?}");
            assert!([fit.left, fit.top, fit.width, fit.height].iter().all(|side| side % 2 == 0), "{fit:?}");
        }
    }
}
