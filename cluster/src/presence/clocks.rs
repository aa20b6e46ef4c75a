//! The voters' wall clocks: their median, and who is far off it.

/// Further off than this a node does not lead if another can.
pub(crate) const OFFSET_MAX_US: i64 = 500_000;

/// The median of clocks given as their leads over this node's, its own 0 among them. Of two that
/// disagree nobody can tell which one is wrong, and there is none.
pub(crate) fn median_us(mut offsets_us: Vec<i64>) -> Option<i64> {
    offsets_us.sort_unstable();
    let middle = offsets_us.len() / 2;
    let upper = *offsets_us.get(middle)?;
    if offsets_us.len() % 2 == 1 {
        return Some(upper);
    }
    let lower = *offsets_us.get(middle.checked_sub(1)?)?;
    let apart_us = upper - lower;
    (offsets_us.len() > 2 || apart_us <= OFFSET_MAX_US).then_some(lower + apart_us / 2)
}

/// The earlier of the two middle ones where there are two: nothing may fall due early by the word of one
/// clock.
pub(crate) fn lower_median_us(offsets_us: &[i64]) -> i64 {
    let mut offsets_us = offsets_us.to_vec();
    offsets_us.sort_unstable();
    let middle = offsets_us.len().saturating_sub(1) / 2;
    offsets_us.get(middle).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_two_clocks_the_earlier_one_is_jumped_to() {
        let day_us = 86_400_000_000;
        assert_eq!(lower_median_us(&[0, day_us]), 0);
        assert_eq!(lower_median_us(&[0, -day_us]), -day_us);
        assert_eq!(lower_median_us(&[0, day_us, 7]), 7);
        assert_eq!(lower_median_us(&[0]), 0);
    }

    #[test]
    fn one_clock_gone_wrong_does_not_move_the_median_of_three() {
        let day_us = 86_400_000_000;
        assert_eq!(median_us(vec![0, 300, -day_us]), Some(0));
        assert_eq!(median_us(vec![0, day_us, day_us + 10]), Some(day_us));
        assert_eq!(median_us(vec![0, 10]), Some(5));
        assert_eq!(median_us(vec![0]), Some(0));
        assert_eq!(median_us(vec![0, day_us]), None);
        assert_eq!(
            median_us(vec![0, 10, day_us, day_us + 10]),
            Some(day_us / 2 + 5)
        );
        assert_eq!(median_us(Vec::new()), None);
    }
}
