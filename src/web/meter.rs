//! A bar that shows how much of a limit is used.

use maud::{Markup, html};

/// Fraction from which a limit counts as nearly used up.
const NEAR: f64 = 0.8;

/// Returns a bar for a part of a limit, 1 being all of it, with the percentage beside it. More than all fills the bar and is marked
/// by words, too: colour alone says nothing to those who do not see it.
pub fn meter(part: f64) -> Markup {
    let part = if part.is_finite() { part.max(0.0) } else { 0.0 };
    let class = match part {
        part if part > 1.0 => "over",
        part if part >= NEAR => "near",
        _ => "below",
    };
    let width = format!("{:.1}", part.min(1.0) * 100.0);
    html! {
        span.meter.(class) {
            svg viewBox="0 0 100 8" preserveAspectRatio="none" aria-hidden="true" {
                rect.track width="100" height="8" {}
                rect.fill width=(width) height="8" {}
            }
            span { (percent(part)) @if part > 1.0 { ", over the limit" } }
        }
    }
}

/// Returns a part as a percentage: `0.4 %`, `42 %`.
pub fn percent(part: f64) -> String {
    let percent = part * 100.0;
    if percent <= 0.0 {
        "0 %".into()
    } else if percent < 0.1 {
        "under 0.1 %".into()
    } else if percent < 9.95 {
        format!("{percent:.1} %")
    } else {
        format!("{percent:.0} %")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_full_at_the_limit() {
        for (part, width, class, text) in [
            (0.0, "0.0", "below", ">0 %<"),
            (0.0004, "0.0", "below", ">under 0.1 %<"),
            (0.421, "42.1", "below", ">42 %<"),
            (0.8, "80.0", "near", ">80 %<"),
            (1.0, "100.0", "near", ">100 %<"),
            (3.5, "100.0", "over", ">350 %, over the limit<"),
            (f64::NAN, "0.0", "below", ">0 %<"),
            (-1.0, "0.0", "below", ">0 %<"),
        ] {
            let bar = meter(part).into_string();
            let fill = format!("class=\"fill\" width=\"{width}\"");
            assert!(
                bar.contains(&fill) && bar.contains(class) && bar.contains(text),
                "{bar}"
            );
        }
    }
}
