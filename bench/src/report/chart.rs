//! The chart: one group of bars for each workload, the longest bar of a group across the whole width.

use super::{Row, RowResult, Table};
use std::fmt::Write;

const WIDTH: usize = 900;
const LABEL_WIDTH: usize = 140;
const FIGURE_WIDTH: usize = 170;
const BAR_WIDTH_MAX: f64 = (WIDTH - LABEL_WIDTH - FIGURE_WIDTH) as f64;
const LINE_HEIGHT: usize = 20;
const TITLE_HEIGHT: usize = 34;
const FLOTILLA_COLOUR: &str = "#1769aa";
const OTHER_COLOUR: &str = "#9aa5b1";

pub fn render(tables: &[Table]) -> String {
    let mut bars = String::new();
    let mut top = 0;
    for table in tables {
        let measured = table.rows.iter().filter_map(|row| match &row.result {
            RowResult::Measured(figures) => {
                Some((row, figures.value, figures.value_low, figures.value_high))
            }
            RowResult::NotMeasured | RowResult::NotSupported | RowResult::Failed { .. } => None,
        });
        let measured: Vec<(&Row, f64, f64, f64)> = measured.collect();
        let longest = measured.iter().map(|(_, _, _, high)| *high);
        let longest = longest.fold(f64::MIN_POSITIVE, f64::max);
        top += TITLE_HEIGHT;
        // Writing to a string cannot fail, here and below.
        let _ = writeln!(
            bars,
            r#"<text x="0" y="{}" font-weight="bold">{} ({}{})</text>"#,
            top - 10,
            escape(&table.title),
            escape(table.unit),
            if table.less_is_better {
                "; less is better"
            } else {
                ""
            }
        );
        for (row, value, low, high) in measured {
            let _ = bar(&mut bars, row.competitor, top, [value, low, high], longest);
            top += LINE_HEIGHT;
        }
    }
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" \
         viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" font-size=\"13\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n{bars}</svg>\n",
        height = top + LINE_HEIGHT
    )
}

/// A bar as long as the median, with a line from the lowest to the highest run.
fn bar(
    text: &mut String,
    competitor: &str,
    top: usize,
    [value, low, high]: [f64; 3],
    longest: f64,
) -> std::fmt::Result {
    let place = |value: f64| LABEL_WIDTH as f64 + (value / longest).clamp(0.0, 1.0) * BAR_WIDTH_MAX;
    let colour = match competitor.starts_with(crate::competitors::BASE) {
        true => FLOTILLA_COLOUR,
        false => OTHER_COLOUR,
    };
    let middle = top + LINE_HEIGHT / 2;
    writeln!(
        text,
        r#"<text x="{}" y="{}" text-anchor="end">{}</text>"#,
        LABEL_WIDTH - 8,
        middle + 4,
        escape(competitor)
    )?;
    writeln!(
        text,
        r#"<rect x="{LABEL_WIDTH}" y="{}" width="{:.1}" height="{}" fill="{colour}"/>"#,
        top + 3,
        place(value) - LABEL_WIDTH as f64,
        LINE_HEIGHT - 6
    )?;
    writeln!(
        text,
        r#"<line x1="{:.1}" x2="{:.1}" y1="{middle}" y2="{middle}" stroke="black"/>"#,
        place(low),
        place(high)
    )?;
    writeln!(
        text,
        r#"<text x="{:.1}" y="{}">{}</text>"#,
        place(high) + 8.0,
        middle + 4,
        super::markdown::figure(value)
    )
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}
