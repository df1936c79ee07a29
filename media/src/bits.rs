//! A bit reader that cannot run past its end, for codec headers.

/// The bits are used up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OutOfBits;

/// Reads bits from the most significant one on.
pub(crate) struct Bits<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Bits<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    pub(crate) fn bit(&mut self) -> Result<bool, OutOfBits> {
        let byte = self.bytes.get(self.at / 8).ok_or(OutOfBits)?;
        let bit = byte >> (7 - self.at % 8) & 1;
        self.at += 1;
        Ok(bit == 1)
    }

    /// The next `count` bits, at most 32.
    pub(crate) fn take(&mut self, count: u32) -> Result<u32, OutOfBits> {
        let mut value = 0u32;
        for _ in 0..count {
            value = value << 1 | u32::from(self.bit()?);
        }
        Ok(value)
    }

    /// Passes over `count` bits.
    pub(crate) fn skip(&mut self, count: usize) -> Result<(), OutOfBits> {
        self.at = self.at.saturating_add(count);
        if self.at <= self.bytes.len() * 8 { Ok(()) } else { Err(OutOfBits) }
    }

    /// An unsigned Exp-Golomb code (ISO/IEC 14496-10 §9.1), at most 32 bits long in its suffix.
    pub(crate) fn ue(&mut self) -> Result<u32, OutOfBits> {
        let mut zeros = 0;
        while !self.bit()? {
            zeros += 1;
            if zeros > 31 {
                return Err(OutOfBits);
            }
        }
        // zeros ≤ 31: 2^31 - 1 + 31 bits of suffix fits into 32 bits
        Ok((1u32 << zeros) - 1 + self.take(zeros)?)
    }

    /// A signed Exp-Golomb code (ISO/IEC 14496-10 §9.1.1).
    pub(crate) fn se(&mut self) -> Result<i64, OutOfBits> {
        let code = i64::from(self.ue()?);
        Ok(if code % 2 == 0 { -(code / 2) } else { (code + 1) / 2 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_golomb_codes_are_read() {
        let mut bits = Bits::new(&[0b1010_0110, 0b0100_0000]);
        assert_eq!([bits.ue(), bits.ue(), bits.ue(), bits.ue()], [Ok(0), Ok(1), Ok(2), Ok(3)]);
    }

    #[test]
    fn skipping_ends_where_the_bits_do() {
        let mut bits = Bits::new(&[0, 0b0000_0001]);
        assert_eq!((bits.skip(15), bits.bit(), bits.skip(0), bits.skip(1)), (Ok(()), Ok(true), Ok(()), Err(OutOfBits)));
        assert_eq!(Bits::new(&[]).skip(usize::MAX), Err(OutOfBits));
    }

    #[test]
    fn a_code_of_zeros_only_ends() {
        assert_eq!(Bits::new(&[0; 16]).ue(), Err(OutOfBits));
    }
}
