//! Writes the Prometheus text format for values that are read at the time of a scrape.

use std::fmt::{Display, Write};

/// The text of one scrape.
#[derive(Default)]
pub(crate) struct TextWriter {
    text: String,
}

impl TextWriter {
    /// Begins a family; its samples follow.
    pub fn family(&mut self, name: &str, kind: &str, help: &str) {
        self.line(format_args!("# HELP {name} {help}"));
        self.line(format_args!("# TYPE {name} {kind}"));
    }

    pub fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        self.text.push_str(name);
        for (place, (label, value)) in labels.iter().enumerate() {
            self.text.push(if place == 0 { '{' } else { ',' });
            self.text.push_str(label);
            self.text.push_str("=\"");
            escape(&mut self.text, value);
            self.text.push('"');
        }
        if !labels.is_empty() {
            self.text.push('}');
        }
        self.line(format_args!(" {value}"));
    }

    /// A family with a single sample.
    pub fn single(&mut self, name: &str, kind: &str, help: &str, value: impl Display) {
        self.family(name, kind, help);
        self.sample(name, &[], value);
    }

    /// A histogram of seconds from counts per bucket of microseconds; the last count has no bound.
    pub fn histogram_us(
        &mut self,
        name: &str,
        help: &str,
        bounds_us: &[u64],
        counts: &[u64],
        sum_us: u64,
    ) {
        self.family(name, "histogram", help);
        let bucket = format!("{name}_bucket");
        let mut total = 0;
        for (bound_us, count) in bounds_us.iter().zip(counts) {
            total += count;
            let bound = (*bound_us as f64 / 1e6).to_string();
            self.sample(&bucket, &[("le", &bound)], total);
        }
        total = counts.iter().sum();
        self.sample(&bucket, &[("le", "+Inf")], total);
        self.sample(&format!("{name}_sum"), &[], sum_us as f64 / 1e6);
        self.sample(&format!("{name}_count"), &[], total);
    }

    pub fn finish(self) -> String {
        self.text
    }

    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        // Writing to a string does not fail.
        let _ = self.text.write_fmt(line);
        self.text.push('\n');
    }
}

fn escape(text: &mut String, value: &str) {
    for character in value.chars() {
        match character {
            '\\' => text.push_str("\\\\"),
            '"' => text.push_str("\\\""),
            '\n' => text.push_str("\\n"),
            other => text.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn label_values_cannot_break_out_of_their_quotes() {
        let mut writer = TextWriter::default();
        writer.sample("a", &[("name", "x\"} 1\n\\"), ("b", "c")], 7);
        assert_eq!(writer.finish(), "a{name=\"x\\\"} 1\\n\\\\\",b=\"c\"} 7\n");
    }

    #[test]
    fn buckets_of_a_histogram_are_cumulative() {
        let mut writer = TextWriter::default();
        writer.histogram_us("h", "Help.", &[1_000, 2_000], &[3, 2, 1], 9_000);
        let text = writer.finish();
        let expected = "# HELP h Help.\n# TYPE h histogram\nh_bucket{le=\"0.001\"} 3\n\
                        h_bucket{le=\"0.002\"} 5\nh_bucket{le=\"+Inf\"} 6\nh_sum 0.009\nh_count 6\n";
        assert_eq!(text, expected);
    }
}
