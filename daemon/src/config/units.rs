//! Sizes and durations as people write them: a whole number and a unit, `64MiB` or `10ms`.
//!
//! A bare number is refused, because nobody can tell from it whether seconds or milliseconds were
//! meant. `0` needs a unit too.

/// The units of a size, largest first, so that printing picks the largest that fits.
const SIZE_UNITS: [(&str, u64); 5] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("B", 1),
];

/// The units of a duration in milliseconds, largest first.
const DURATION_UNITS: [(&str, u64); 5] = [
    ("d", 24 * 60 * 60 * 1_000),
    ("h", 60 * 60 * 1_000),
    ("m", 60 * 1_000),
    ("s", 1_000),
    ("ms", 1),
];

/// Reads a size in bytes; `None` if the text is none.
pub fn parse_size(text: &str) -> Option<u64> {
    parse(text, &SIZE_UNITS)
}

/// Reads a duration in milliseconds; `None` if the text is none.
pub fn parse_duration_ms(text: &str) -> Option<u64> {
    parse(text, &DURATION_UNITS)
}

/// Writes a size so that [`parse_size`] reads it back.
pub fn format_size(bytes: u64) -> String {
    format(bytes, &SIZE_UNITS)
}

/// Writes a duration so that [`parse_duration_ms`] reads it back.
pub fn format_duration_ms(ms: u64) -> String {
    format(ms, &DURATION_UNITS)
}

fn parse(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let unit = unit.trim_start();
    let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
    number.parse::<u64>().ok()?.checked_mul(*factor)
}

fn format(amount: u64, units: &[(&str, u64)]) -> String {
    let smallest = units[units.len() - 1];
    let (name, factor) = units
        .iter()
        .find(|(_, factor)| amount != 0 && amount.is_multiple_of(*factor))
        .copied()
        .unwrap_or(smallest);
    format!("{}{name}", amount / factor)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_size_has_a_number_and_a_unit() {
        assert_eq!(parse_size("64MiB"), Some(64 << 20));
        assert_eq!(parse_size("1 GiB"), Some(1 << 30));
        assert_eq!(parse_size("0B"), Some(0));
        for bad in [
            "", "64", "MiB", "64MB", "64mib", "-1MiB", "1.5GiB", "64MiBs", "+1B",
        ] {
            assert_eq!(parse_size(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn a_duration_has_a_number_and_a_unit() {
        assert_eq!(parse_duration_ms("10ms"), Some(10));
        assert_eq!(parse_duration_ms("2m"), Some(120_000));
        assert_eq!(parse_duration_ms("7d"), Some(604_800_000));
        for bad in ["", "10", "ms", "10 sec", "1.5s", "-1s", "10us"] {
            assert_eq!(parse_duration_ms(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn a_number_too_large_for_its_unit_is_refused_and_does_not_wrap() {
        assert_eq!(parse_size("99999999999999TiB"), None);
        assert_eq!(parse_duration_ms("18446744073709551615d"), None);
        assert_eq!(parse_size("18446744073709551616B"), None);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(amount: u64) {
            prop_assert_eq!(parse_size(&format_size(amount)), Some(amount));
            prop_assert_eq!(parse_duration_ms(&format_duration_ms(amount)), Some(amount));
        }

        #[test]
        fn no_text_panics(text: String) {
            let _ = (parse_size(&text), parse_duration_ms(&text));
        }
    }
}
