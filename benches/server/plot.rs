//! A plot of the figures.

use plotters::prelude::*;

/// Horizontal bars, as SVG.
pub(crate) fn bars(title: &str, values: &[(&str, f64)]) -> String {
    let mut svg = String::new();
    let drawn = draw(title, values, &mut svg);
    if let Err(error) = drawn {
        svg = format!("<!-- {error} -->");
    }
    svg
}

fn draw(
    title: &str,
    values: &[(&str, f64)],
    svg: &mut String,
) -> Result<(), Box<dyn std::error::Error>> {
    let height = 90 + 40 * u32::try_from(values.len())?;
    let area = SVGBackend::with_string(svg, (640, height)).into_drawing_area();
    area.fill(&WHITE)?;
    let most = values.iter().map(|(_, value)| *value).fold(1.0, f64::max) * 1.15;
    let count = i32::try_from(values.len())?;
    let mut chart = ChartBuilder::on(&area)
        .caption(title, ("sans-serif", 16))
        .margin(10)
        .x_label_area_size(30)
        .y_label_area_size(150)
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
        chart.draw_series([Text::new(format!(" {value:.1}"), at, ("sans-serif", 13))])?;
    }
    area.present()?;
    drop(chart);
    Ok(())
}
