//! Plots of figures, as SVG.

use std::error::Error;

use plotters::prelude::*;

use super::Measured;

const FONT: &str = "sans-serif";
/// Width of a letter of a name beside a bar, in pixels, roughly.
const LETTER: u32 = 6;

/// Latency by the share of answers that stayed below it. Each step to the right is half of the
/// answers that were left, so that the slowest few can be seen.
///
/// # Errors
/// What the plotting library says.
pub fn latency(title: &str, measured: &Measured) -> Result<String, Box<dyn Error>> {
    let mut svg = String::new();
    let points: Vec<(f64, f64)> = measured
        .latency
        .iter_quantiles(8)
        .map(|step| (halvings(step.quantile()), micros(step.value_iterated_to())))
        .filter(|(step, _)| step.is_finite())
        .collect();
    let right = points.last().map_or(1.0, |(step, _)| step.max(1.0));
    let (low, high) = (micros(measured.latency.min().max(1)), micros(measured.latency.max()));
    {
        let area = SVGBackend::with_string(&mut svg, (720, 400)).into_drawing_area();
        area.fill(&WHITE)?;
        let mut chart = ChartBuilder::on(&area)
            .caption(title, (FONT, 16))
            .margin(12)
            .x_label_area_size(40)
            .y_label_area_size(70)
            .build_cartesian_2d(0.0..right, (low * 0.9..high.max(low) * 1.1).log_scale())?;
        let share = |step: &f64| format!("{} %", round(100.0 * (1.0 - 0.5_f64.powf(*step))));
        let time = |micros: &f64| format!("{} ms", round(micros / 1000.0));
        chart
            .configure_mesh()
            .max_light_lines(1)
            .x_label_formatter(&share)
            .y_label_formatter(&time)
            .x_desc("answers within")
            .draw()?;
        chart.draw_series(LineSeries::new(points, BLUE.stroke_width(2)))?;
        area.present()?;
    }
    Ok(svg)
}

/// How often what is left must be halved to come from all answers to those beyond `share`.
fn halvings(share: f64) -> f64 {
    -(1.0 - share).log2()
}

/// A number as people write it: four digits that say something.
fn round(number: f64) -> f64 {
    let scale = if number < 99.0 { 1000.0 } else { 100.0 };
    (number * scale).round() / scale
}

#[expect(clippy::cast_precision_loss, reason = "no request takes a century")]
fn micros(value: u64) -> f64 {
    value as f64
}

/// Horizontal bars.
///
/// # Errors
/// A value that is no number or infinite, and what the plotting library says.
pub fn bars(title: &str, values: &[(&str, f64)]) -> Result<String, Box<dyn Error>> {
    let mut svg = String::new();
    let height = 90 + 40 * u32::try_from(values.len())?;
    let longest = values.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    let names = (LETTER * u32::try_from(longest)?).max(150);
    let area = SVGBackend::with_string(&mut svg, (490 + names, height)).into_drawing_area();
    area.fill(&WHITE)?;
    // An axis without an end would be drawn for ever.
    if let Some((name, value)) = values.iter().find(|(_, value)| !value.is_finite()) {
        return Err(format!("no bar for {name}: {value}").into());
    }
    let most = values.iter().map(|(_, value)| *value).fold(1.0, f64::max) * 1.15;
    let count = i32::try_from(values.len())?;
    let mut chart = ChartBuilder::on(&area)
        .caption(title, (FONT, 16))
        .margin(10)
        .x_label_area_size(30)
        .y_label_area_size(names)
        .build_cartesian_2d(0.0..most, (0..count).into_segmented())?;
    let name = |segment: &SegmentValue<i32>| match segment {
        SegmentValue::CenterOf(index) => usize::try_from(*index)
            .ok()
            .and_then(|index| values.get(index))
            .map_or_else(String::new, |(name, _)| (*name).to_owned()),
        _ => String::new(),
    };
    chart.configure_mesh().disable_y_mesh().y_label_formatter(&name).draw()?;
    for (index, (_, value)) in values.iter().enumerate() {
        let index = i32::try_from(index)?;
        let corners = [(0.0, SegmentValue::Exact(index)), (*value, SegmentValue::Exact(index + 1))];
        let mut bar = Rectangle::new(corners, BLUE.mix(0.6).filled());
        bar.set_margin(6, 6, 0, 0);
        chart.draw_series([bar])?;
        let at = (*value, SegmentValue::CenterOf(index));
        chart.draw_series([Text::new(format!(" {value:.1}"), at, (FONT, 13))])?;
    }
    area.present()?;
    drop(chart);
    drop(area);
    Ok(svg)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::bench::End;

    #[test]
    fn plots_are_drawn_whatever_was_measured() {
        for answers in [0, 1, 5000] {
            let mut measured = Measured::new();
            for index in 0..answers {
                let took = Duration::from_micros(100 + index * index);
                let left = Duration::ZERO;
                measured.record(End { result: Ok(()), left, took, timeout: None });
            }
            let svg = latency("latency", &measured).unwrap();
            assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"), "{answers}");
        }
        let svg = bars("costs", &[("floor", 10.0), ("tiny", 25.0)]).unwrap();
        assert!(svg.contains("floor") && svg.contains("25.0"));
        assert!(bars("costs", &[("nothing", f64::INFINITY)]).is_err());
    }
}
