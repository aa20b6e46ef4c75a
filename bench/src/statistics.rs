//! Medians, spreads, ratios within a round, and what a ratio may truly be.
//!
//! The machine changes from minute to minute more than competitors differ, so two systems are compared
//! by the ratios of runs that lay side by side, and never by their medians over the whole bench.

/// The middle of some values; of an even number the mean of the two in the middle. None of nothing.
pub fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        length if length % 2 == 1 => Some(sorted[middle]),
        _ => Some((sorted[middle - 1] + sorted[middle]) / 2.0),
    }
}

/// The lowest and the highest of some values. None of nothing.
pub fn spread(values: &[f64]) -> Option<(f64, f64)> {
    let lowest = values.iter().copied().min_by(f64::total_cmp)?;
    let highest = values.iter().copied().max_by(f64::total_cmp)?;
    Some((lowest, highest))
}

/// An estimate of a ratio.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RatioEstimate {
    /// The geometric mean of the ratios.
    pub mean: f64,
    /// Where the true ratio lies in 95 of 100 such measurements.
    pub low: f64,
    pub high: f64,
}

/// Student's t-interval of the logarithms of ratios; without at least two ratios, or with one that is not
/// a positive number, there is none.
pub fn estimate_ratio(ratios: &[f64]) -> Option<RatioEstimate> {
    let positive = ratios.iter().all(|ratio| ratio.is_finite() && *ratio > 0.0);
    if ratios.len() < 2 || !positive {
        return None;
    }
    let count = ratios.len() as f64;
    let logarithms: Vec<f64> = ratios.iter().map(|ratio| ratio.ln()).collect();
    let mean = logarithms.iter().sum::<f64>() / count;
    let squares: f64 = logarithms.iter().map(|value| (value - mean).powi(2)).sum();
    let error_of_mean = (squares / (count - 1.0) / count).sqrt();
    let half_width = t_quantile_975(ratios.len() - 1) * error_of_mean;
    Some(RatioEstimate {
        mean: mean.exp(),
        low: (mean - half_width).exp(),
        high: (mean + half_width).exp(),
    })
}

/// The quantile 0.975 of Student's distribution: of a few degrees of freedom from the table, beyond them
/// that of the last one, which is a little too wide and never too narrow.
fn t_quantile_975(degrees_of_freedom: usize) -> f64 {
    const TABLE: [f64; 30] = [
        12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160,
        2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056,
        2.052, 2.048, 2.045, 2.042,
    ];
    TABLE[degrees_of_freedom.clamp(1, TABLE.len()) - 1]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_whatever_the_order() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 3.0, 2.0]), Some(2.5));
        assert_eq!(median(&[]), None);
    }

    #[test]
    fn one_wild_run_is_in_the_spread_and_not_in_the_median() {
        let rates = [100.0, 5.0, 102.0];
        assert_eq!(median(&rates), Some(100.0));
        assert_eq!(spread(&rates), Some((5.0, 102.0)));
        assert_eq!(spread(&[]), None);
    }

    #[test]
    fn an_interval_holds_the_mean_and_narrows_with_more_runs() {
        let few = estimate_ratio(&[0.95, 1.05, 1.0]).expect("three ratios");
        let many = estimate_ratio(&[0.95, 1.05, 1.0].repeat(4)).expect("twelve ratios");
        for estimate in [few, many] {
            assert!(estimate.low < estimate.mean && estimate.mean < estimate.high);
            assert!((0.99..1.01).contains(&estimate.mean));
        }
        assert!(many.high - many.low < few.high - few.low);
    }

    #[test]
    fn an_interval_is_as_wide_as_the_table_says() {
        // Two logarithms of +-0.1: standard error 0.1, one degree of freedom.
        let ratios = [0.1_f64.exp(), (-0.1_f64).exp()];
        let estimate = estimate_ratio(&ratios).expect("two ratios");
        assert!((estimate.mean - 1.0).abs() < 1e-9);
        assert!((estimate.high.ln() - 1.2706).abs() < 1e-3, "{estimate:?}");
        assert!((estimate.low.ln() + 1.2706).abs() < 1e-3, "{estimate:?}");
    }

    #[test]
    fn ratios_that_say_nothing_have_no_interval() {
        assert_eq!(estimate_ratio(&[1.0]), None);
        assert_eq!(estimate_ratio(&[1.0, 0.0]), None);
        assert_eq!(estimate_ratio(&[1.0, f64::NAN]), None);
    }
}
