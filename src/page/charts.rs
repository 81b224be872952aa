//! Charts of points in time, drawn here as SVG: bars that stand on each other, and lines.
//!
//! A chart is for the eye alone and for the mouse: what it shows stands in a table beside it, with the same links, so
//! that it is left out for those who hear the page or use the keyboard. Nothing in it is inline style; the style sheet
//! says what `v0`, `v1`… look like. A point without values is a gap.

use std::fmt::Write as _;

use minijinja::value::Value as Shown;
use minijinja::{Environment, HtmlEscape};

/// How wide a point is.
const WIDE: u64 = 10;
/// How high the highest value is.
const HIGH: u64 = 100;

pub(super) fn add_to(pages: &mut Environment<'static>) {
    pages.add_filter("bars", |chart: Shown| bars(&Chart::read(&chart)));
    pages.add_filter("lines", |chart: Shown| lines(&Chart::read(&chart)));
}

/// What is drawn.
#[derive(Default)]
struct Chart {
    points: Vec<Point>,
    /// The highest that there is room for.
    most: u64,
    /// Values of another time that are compared, a point each.
    beside: Vec<Option<u64>>,
}

#[derive(Default)]
struct Point {
    href: String,
    title: String,
    /// From the lowest up; `None` where nothing is known.
    values: Vec<Option<u64>>,
    gap: bool,
}

impl Chart {
    fn read(shown: &Shown) -> Self {
        let each = |name: &str| shown.get_attr(name).ok().and_then(|list| list.try_iter().ok()).into_iter().flatten();
        let number = |value: &Shown| u64::try_from(value.clone()).ok();
        let text = |value: &Shown, name: &str| value.get_attr(name).map(|text| text.to_string()).unwrap_or_default();
        let point = |value: Shown| Point {
            href: text(&value, "href"),
            title: text(&value, "title"),
            values: value
                .get_attr("values")
                .ok()
                .and_then(|list| list.try_iter().ok())
                .into_iter()
                .flatten()
                .map(|one| number(&one))
                .collect(),
            gap: value.get_attr("gap").is_ok_and(|gap| gap.is_true()),
        };
        Self {
            points: each("points").map(point).collect(),
            most: shown.get_attr("most").ok().as_ref().and_then(number).unwrap_or_default().max(1),
            beside: each("beside").map(|value| number(&value)).collect(),
        }
    }

    fn width(&self) -> u64 {
        (self.points.len() as u64).max(1) * WIDE
    }

    /// How high a value is; what is not zero is always seen.
    fn high(&self, value: u64) -> u64 {
        (value.min(self.most) * HIGH).div_ceil(self.most)
    }

    /// A line through values, broken where there is none.
    fn line(&self, class: &str, values: impl Iterator<Item = Option<u64>>) -> String {
        let mut drawn = String::new();
        let (mut at, mut before) = (WIDE / 2, false);
        for value in values {
            if let Some(value) = value {
                let y = HIGH - self.high(value);
                // A point between gaps is a short stroke.
                // Writing into a text cannot fail.
                _ = if before { write!(drawn, "L{at} {y}") } else { write!(drawn, "M{} {y}H{at}", at - WIDE / 4) };
            }
            before = value.is_some();
            at += WIDE;
        }
        format!("<path class=\"line {class}\" vector-effect=\"non-scaling-stroke\" d=\"{drawn}\"/>")
    }

    fn drawn(&self, inside: &str) -> Shown {
        let mut links = String::new();
        for (x, point) in (0..).step_by(10).zip(&self.points) {
            let class = if point.gap { "gap" } else { "hit" };
            let (href, title) = (HtmlEscape(&point.href), HtmlEscape(&point.title));
            // Writing into a text cannot fail.
            _ = write!(
                links,
                "<a href=\"{href}\" tabindex=\"-1\"><title>{title}</title><rect class=\"{class}\" x=\"{x}\" y=\"0\" \
                 width=\"{WIDE}\" height=\"{HIGH}\"/></a>"
            );
        }
        Shown::from_safe_string(format!(
            "<svg class=\"chart\" viewBox=\"0 0 {} {HIGH}\" preserveAspectRatio=\"none\" aria-hidden=\"true\" \
             focusable=\"false\">{inside}{links}</svg>",
            self.width()
        ))
    }
}

fn bars(chart: &Chart) -> Shown {
    let mut drawn = String::new();
    for (x, point) in (0..).step_by(10).zip(&chart.points) {
        let mut below = 0;
        for (number, value) in point.values.iter().enumerate() {
            let top = below + value.unwrap_or_default();
            let (from, to) = (chart.high(below), chart.high(top));
            if to > from {
                let (y, height, width) = (HIGH - to, to - from, WIDE - 1);
                _ = write!(
                    drawn,
                    "<rect class=\"v{number}\" x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{height}\"/>"
                );
            }
            below = top;
        }
    }
    if !chart.beside.is_empty() {
        drawn += &chart.line("beside", chart.beside.iter().copied());
    }
    chart.drawn(&drawn)
}

fn lines(chart: &Chart) -> Shown {
    let count = chart.points.iter().map(|point| point.values.len()).max().unwrap_or_default();
    let value = |point: &Point, number: usize| point.values.get(number).copied().flatten();
    let line = |number: usize| chart.line(&format!("v{number}"), chart.points.iter().map(|point| value(point, number)));
    let drawn: String = (0..count).map(line).collect();
    chart.drawn(&drawn)
}

#[cfg(test)]
mod tests {
    use super::*;
    use minijinja::value::Serde;
    use serde_json::json;

    fn chart(points: &serde_json::Value) -> Chart {
        Chart::read(&Shown::from(Serde(json!({ "most": 200, "points": points }))))
    }

    #[test]
    fn bars_stand_on_each_other_and_a_gap_is_none() {
        let shown = bars(&chart(&json!([
            { "href": "/a?b=1&c=<", "title": "<b>", "values": [50, 150] },
            { "href": "/", "title": "", "values": [], "gap": true },
            { "href": "/", "title": "", "values": [0, 1] },
        ])));
        let shown = shown.to_string();
        assert!(shown.contains("class=\"v0\" x=\"0\" y=\"75\" width=\"9\" height=\"25\""), "{shown}");
        assert!(shown.contains("class=\"v1\" x=\"0\" y=\"0\" width=\"9\" height=\"75\""), "{shown}");
        assert!(
            shown.contains("class=\"v1\" x=\"20\" y=\"99\"") && shown.matches("class=\"gap\"").count() == 1,
            "{shown}"
        );
        assert!(!shown.contains("<b>") && shown.contains("b=1&amp;c=&lt;"), "{shown}");
    }

    #[test]
    fn a_line_is_broken_where_nothing_is_known() {
        let points: Vec<_> = [Some(200), None, Some(0), Some(100)].map(|value| json!({ "values": [value] })).into();
        let shown = lines(&chart(&json!(points))).to_string();
        assert!(shown.contains("d=\"M3 0H5M23 100H25L35 50\""), "{shown}");
    }
}
