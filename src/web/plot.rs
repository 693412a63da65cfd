//! A plot of values over time as SVG, with its numbers in words and in a table.
//!
//! Values are drawn as steps, each as wide as the time that it is of. Where nothing is known there is no line, and the background is
//! marked. Lines differ by their strokes, too: colour alone says nothing to those who do not see it.

use std::fmt::Write as _;
use std::time::Duration;

use maud::{Markup, html};

use super::table::table;

/// Height of the plot in units of its own; a value is as wide as one unit.
const HEIGHT: f64 = 100.0;
/// Number of rows of the table.
const ROWS: usize = 12;
/// Part of the limit from which on the plot is high enough for it.
const LIMIT_FROM: f64 = 0.2;

/// A plot.
#[derive(Debug, Clone, Copy)]
pub struct Plot<'p> {
    /// Id of the element, of letters, digits and hyphens; the only one of the page.
    pub id: &'p str,
    /// Heading, which names the quantity.
    pub title: &'p str,
    /// One or two lines. All have the same number of values.
    pub lines: &'p [PlotLine<'p>],
    /// Name of a limit, and its value.
    pub limit: Option<(&'p str, f64)>,
    /// Writes a value with its unit.
    pub unit: fn(f64) -> String,
    /// Time that a value is of.
    pub step: Duration,
}

/// A line of a plot.
#[derive(Debug, Clone)]
pub struct PlotLine<'p> {
    /// Name, as in `to the backends`.
    pub name: &'p str,
    /// Values, the oldest first; `None`: not known.
    pub values: Vec<Option<f64>>,
}

/// Values of a line in short.
#[derive(Debug, Clone, Copy, PartialEq)]
struct LineSummary {
    last: f64,
    mean: f64,
    highest: f64,
}

impl Plot<'_> {
    /// Returns the plot as a figure.
    pub fn markup(&self) -> Markup {
        let (title_id, text_id) = (format!("{}-title", self.id), format!("{}-text", self.id));
        let steps = self.steps();
        let top = self.top();
        let view = format!("0 0 {} {HEIGHT}", steps.max(1));
        let text = self.text();
        html! {
            figure.plot #(self.id) {
                figcaption {
                    strong #(title_id) { (self.title) }
                    @for (at, line) in self.lines.iter().enumerate() {
                        span.key { (key(&format!("line-{at}"))) (line.name) ": " (self.short(line)) }
                    }
                    @if let Some((name, limit)) = self.limit {
                        span.key {
                            (key("limit")) (name) ": " ((self.unit)(limit))
                            @if limit > top { ", above the plot" }
                        }
                    }
                }
                div.frame {
                    span.top aria-hidden="true" { ((self.unit)(top)) }
                    svg viewBox=(view) preserveAspectRatio="none" role="img" aria-labelledby={ (title_id) " " (text_id) } {
                        desc #(text_id) { (text) }
                        @for (from, to) in self.unknown() {
                            rect.unknown x=(from) y="0" width=(to - from) height="100" {}
                        }
                        path.grid d={ "M0 0H" (steps) "M0 50H" (steps) "M0 100H" (steps) } {}
                        @if let Some((_, limit)) = self.limit.filter(|(_, limit)| *limit <= top) {
                            path.limit d={ "M0 " (height(limit, top)) "H" (steps) } {}
                        }
                        @for (at, line) in self.lines.iter().enumerate() {
                            path.{ "line-" (at) } d=(path(&line.values, top)) {}
                        }
                    }
                    div.times aria-hidden="true" {
                        @for part in [4, 3, 2, 1] { span { (minutes(self.step, steps * part / 4)) " min" } }
                        span { "now" }
                    }
                }
                details {
                    summary { "As a table" }
                    (self.table())
                }
            }
        }
    }

    fn steps(&self) -> usize {
        self.lines.iter().map(|line| line.values.len()).max().unwrap_or(0)
    }

    /// Returns the value at the upper edge: a round one that no line is above, nor the limit unless it is far away.
    fn top(&self) -> f64 {
        let values = self.lines.iter().flat_map(|line| line.values.iter().flatten());
        let highest = values.copied().fold(0.0, f64::max);
        let limit = self.limit.map_or(0.0, |(_, limit)| limit);
        round_up(if highest >= limit * LIMIT_FROM {
            highest.max(limit)
        } else {
            highest
        })
    }

    /// Returns the ranges of steps of which no line knows anything.
    fn unknown(&self) -> Vec<(usize, usize)> {
        let mut ranges: Vec<(usize, usize)> = Vec::new();
        for at in 0..self.steps() {
            let is_known = |line: &PlotLine<'_>| line.values.get(at).copied().flatten().is_some();
            if self.lines.iter().any(is_known) {
                continue;
            }
            match ranges.last_mut() {
                Some((_, to)) if *to == at => *to += 1,
                _ => ranges.push((at, at + 1)),
            }
        }
        ranges
    }

    fn short(&self, line: &PlotLine<'_>) -> String {
        summary(&line.values).map_or_else(
            || "not known".into(),
            |short| format!("{}, highest {}", (self.unit)(short.last), (self.unit)(short.highest)),
        )
    }

    /// Returns what the plot shows, in words.
    fn text(&self) -> String {
        let mut text = format!("The last {} minutes.", minutes(self.step, self.steps()));
        for line in self.lines {
            let name = line.name;
            let _ = match summary(&line.values) {
                None => write!(text, " {name}: not known."),
                Some(short) => {
                    let [last, mean, highest] = [short.last, short.mean, short.highest].map(self.unit);
                    write!(text, " {name}: {last} now, {mean} on average, {highest} at most.")
                }
            };
        }
        if let Some((name, limit)) = self.limit {
            let is_over = |value: &&f64| **value > limit;
            let over = |line: &PlotLine<'_>| line.values.iter().flatten().filter(is_over).count();
            let over: usize = self.lines.iter().map(over).max().unwrap_or(0);
            let _ = write!(text, " {name}: {}", (self.unit)(limit));
            let _ = match over {
                0 => write!(text, ", never exceeded."),
                _ => write!(text, ", exceeded for {} min.", minutes(self.step, over).max(1)),
            };
        }
        text
    }

    fn table(&self) -> Markup {
        let steps = self.steps();
        let most = steps.div_ceil(ROWS).max(1);
        let names = self.lines.iter().map(|line| line.name);
        let columns: Vec<&str> = std::iter::once("Minutes ago").chain(names).collect();
        let row = |begin: usize| {
            let end = (begin + most).min(steps);
            let time = format!(
                "{} to {}",
                minutes(self.step, steps - begin),
                minutes(self.step, steps - end)
            );
            let cells = self.lines.iter().map(|line| {
                let values = line.values.get(begin..end).unwrap_or_default();
                let text = summary(values).map_or_else(
                    || "not known".into(),
                    |short| format!("{}, at most {}", (self.unit)(short.mean), (self.unit)(short.highest)),
                );
                html! { (text) }
            });
            std::iter::once(html! { (time) }).chain(cells).collect()
        };
        let rows: Vec<Vec<Markup>> = (0..steps).step_by(most).map(row).rev().collect();
        table(&columns, &rows)
    }
}

/// Returns a piece of a line, to tell lines apart by.
fn key(class: &str) -> Markup {
    html! {
        svg viewBox="0 0 24 8" aria-hidden="true" { path.(class) d="M0 4H24" {} }
    }
}

/// Returns the path of the known values, as steps.
fn path(values: &[Option<f64>], top: f64) -> String {
    let mut path = String::new();
    let mut is_drawing = false;
    for (at, value) in values.iter().enumerate() {
        let Some(value) = value else {
            is_drawing = false;
            continue;
        };
        let y = height(*value, top);
        let _ = if is_drawing {
            write!(path, "V{y}H{}", at + 1)
        } else {
            write!(path, "M{at} {y}H{}", at + 1)
        };
        is_drawing = true;
    }
    path
}

/// Returns the distance of a value from the upper edge.
fn height(value: f64, top: f64) -> String {
    let part = (value / top).clamp(0.0, 1.0);
    format!("{:.1}", HEIGHT * (1.0 - part))
}

/// Returns 1, 2 or 5 times a power of ten, which is not less than the value.
fn round_up(value: f64) -> f64 {
    if !value.is_finite() || value <= 1.0 {
        return 1.0;
    }
    let power = 10_f64.powf(value.log10().floor());
    let steps = [1.0, 2.0, 5.0, 10.0].map(|step| step * power);
    steps.into_iter().find(|step| *step >= value).unwrap_or(power * 10.0)
}

/// Returns whole minutes.
fn minutes(step: Duration, steps: usize) -> u64 {
    step.as_secs().saturating_mul(steps as u64) / 60
}

fn summary(values: &[Option<f64>]) -> Option<LineSummary> {
    let known = || values.iter().flatten().copied();
    let last = known().next_back()?;
    #[expect(clippy::cast_precision_loss, reason = "there are few")]
    let count = known().count() as f64;
    Some(LineSummary {
        last,
        mean: known().sum::<f64>() / count,
        highest: known().fold(0.0, f64::max),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::web::units::packet_rate;

    fn line<'l>(name: &'l str, values: &[Option<f64>]) -> PlotLine<'l> {
        PlotLine {
            name,
            values: values.to_vec(),
        }
    }

    fn plot<'p>(lines: &'p [PlotLine<'p>], limit: Option<f64>) -> Plot<'p> {
        Plot {
            id: "packets",
            title: "Packets <b>",
            lines,
            limit: limit.map(|limit| ("Limit", limit)),
            unit: packet_rate,
            step: Duration::from_secs(30),
        }
    }

    #[test]
    fn known_values_are_steps_and_the_rest_is_marked() {
        let lines = [line("to them", &[None, Some(0.0), Some(50.0), None, Some(100.0)])];
        let text = plot(&lines, None).markup().into_string();
        assert!(text.contains("d=\"M1 100.0H2V50.0H3M4 0.0H5\""), "{text}");
        assert!(
            text.contains("<rect class=\"unknown\" x=\"0\" y=\"0\" width=\"1\""),
            "{text}"
        );
        assert!(
            text.contains("<rect class=\"unknown\" x=\"3\" y=\"0\" width=\"1\""),
            "{text}"
        );
        assert!(
            text.contains("100 packets/s now, 50 packets/s on average, 100 packets/s at most."),
            "{text}"
        );
        assert!(
            text.contains("aria-labelledby=\"packets-title packets-text\""),
            "{text}"
        );
        assert!(!text.contains("<b>") && !text.contains("style"), "{text}");
    }

    #[test]
    fn the_limit_is_drawn_where_it_matters() {
        let near = [line("to", &[Some(300.0), Some(1200.0)])];
        let text = plot(&near, Some(1000.0)).markup().into_string();
        assert!(text.contains("<path class=\"limit\" d=\"M0 50.0H2\">"), "{text}");
        assert!(text.contains("Limit: 1,000 packets/s, exceeded for 1 min."), "{text}");
        let far = [line("to", &[Some(3.0), Some(4.0)])];
        let text = plot(&far, Some(1000.0)).markup().into_string();
        assert!(text.matches("class=\"limit\"").count() == 1, "{text}");
        assert!(
            text.contains("1,000 packets/s, above the plot") && text.contains("never exceeded"),
            "{text}"
        );
    }

    #[test]
    fn the_table_has_all_of_it_the_newest_first() {
        let values: Vec<_> = (0..120_u32).map(|at| (at >= 10).then(|| f64::from(at))).collect();
        let lines = [line("to", &values), line("from", &[None; 120])];
        let text = plot(&lines, None).markup().into_string();
        assert_eq!(text.matches("<tr>").count(), 1 + ROWS, "{text}");
        let newest = text.find(">5 to 0</th>").expect("the newest");
        let oldest = text.find(">60 to 55</th>").expect("the oldest");
        assert!(newest < oldest, "{text}");
        assert!(text.contains("115 packets/s, at most 119 packets/s"), "{text}");
        assert!(text.contains("<span>60 min</span><span>45 min</span>"), "{text}");
    }

    #[test]
    fn a_plot_of_nothing_is_a_plot() {
        for lines in [&[][..], &[line("to", &[])], &[line("to", &[None; 3])]] {
            let text = plot(lines, Some(0.0)).markup().into_string();
            assert!(text.starts_with("<figure") && !text.contains("NaN"), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_value_leaves_the_frame(values in prop::collection::vec(prop::option::of(0.0..1e15), 0..130), limit in prop::option::of(0.0..1e9)) {
            let lines = [line("to", &values)];
            let plot = plot(&lines, limit);
            let (top, known) = (plot.top(), values.iter().flatten());
            prop_assert!(known.clone().all(|value| *value <= top), "{top}");
            let path = path(&values, top);
            let numbers = path.split(['M', 'H', 'V', ' ']).filter(|text| !text.is_empty());
            for number in numbers {
                let number: f64 = number.parse().expect("a number");
                let most = u32::try_from(values.len()).expect("few").max(100);
                prop_assert!((0.0..=f64::from(most)).contains(&number), "{path}");
            }
            // Each known value is as wide as one step.
            prop_assert_eq!(path.matches('H').count(), known.count());
        }

        #[test]
        fn tops_are_round(value in 0.0..1e15_f64) {
            let top = round_up(value);
            prop_assert!(top >= value && top <= (value * 2.5).max(1.0), "{value}: {top}");
        }
    }
}
