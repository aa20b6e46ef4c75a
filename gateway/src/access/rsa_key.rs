//! How long an RSA key is: too short ones are refused at the start, and not token by token.

/// Lengths that signatures are checked with.
pub const BITS_MIN: usize = 2_048;
pub const BITS_MAX: usize = 8_192;

const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const SEQUENCE: u8 = 0x30;

/// The bits of the modulus of a public key in DER, if it is an RSA key.
///
/// ```text
///   sequence: sequence (algorithm), bit string
///     of which: 0 (bits that do not count), sequence: integer (modulus), integer (exponent)
/// ```
pub fn bits(public_key: &[u8]) -> Option<usize> {
    let (key, _) = read(SEQUENCE, public_key)?;
    let (_, after_algorithm) = read(SEQUENCE, key)?;
    let (string, _) = read(BIT_STRING, after_algorithm)?;
    let (numbers, _) = read(SEQUENCE, string.strip_prefix(&[0])?)?;
    let (modulus, _) = read(INTEGER, numbers)?;
    let zeros = modulus.iter().take_while(|byte| **byte == 0).count();
    let digits = &modulus[zeros..];
    let first = digits.first()?;
    Some(digits.len() * 8 - first.leading_zeros() as usize)
}

/// The content of a value of this kind, and what comes after it.
fn read(kind: u8, der: &[u8]) -> Option<(&[u8], &[u8])> {
    let (found, rest) = der.split_first()?;
    let (length, rest) = rest.split_first()?;
    let (length, rest) = match usize::from(*length) {
        // A length above 127 is said by as many bytes.
        long @ 0x81..=0x84 => {
            let (bytes, rest) = rest.split_at_checked(long - 0x80)?;
            let length = bytes
                .iter()
                .fold(0, |length, byte| length << 8 | usize::from(*byte));
            (length, rest)
        }
        short @ ..=0x7f => (short, rest),
        _ => return None,
    };
    (*found == kind).then(|| rest.split_at_checked(length))?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(kind: u8, content: &[u8]) -> Vec<u8> {
        let mut der = vec![kind, 0x82];
        der.extend((content.len() as u16).to_be_bytes());
        der.extend(content);
        der
    }

    fn key(modulus: &[u8]) -> Vec<u8> {
        let numbers = [value(INTEGER, modulus), value(INTEGER, &[1, 0, 1])].concat();
        let string = [vec![0], value(SEQUENCE, &numbers)].concat();
        let parts = [value(SEQUENCE, &[5, 0]), value(BIT_STRING, &string)].concat();
        value(SEQUENCE, &parts)
    }

    #[test]
    fn the_bits_of_a_key_are_those_of_its_modulus_without_zeros_before_it() {
        assert_eq!(bits(&key(&[0, 0x80, 0, 0])), Some(24));
        assert_eq!(bits(&key(&[0x7f; 256])), Some(2_047));
        assert_eq!(bits(&key(&[0xff; 256])), Some(2_048));
    }

    #[test]
    fn what_is_no_key_has_none() {
        let whole = key(&[0x80; 128]);
        for end in 0..whole.len() {
            let _ = bits(&whole[..end]);
        }
        assert_eq!(bits(&whole[..40]), None);
        assert_eq!(bits(&[SEQUENCE, 0x80, 0, 0]), None);
        assert_eq!(bits(&[SEQUENCE, 0x85, 1, 1, 1, 1, 1]), None);
        assert_eq!(bits(&key(&[0, 0])), None);
    }
}
