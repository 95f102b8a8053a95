//! A profile as a plot: time per row over rows, one line per length, as SVG.

use std::error::Error;

use plotters::coord::combinators::BindKeyPoints;
use plotters::prelude::*;

use super::table::{duration, per_row};
use crate::repository::profile::Profile;

const FONT: &str = "sans-serif";
/// Colors of lines that can be told apart by those who see few colors, too (Okabe and Ito).
const COLORS: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
    RGBColor(230, 159, 0),
    RGBColor(0, 0, 0),
];
/// Room between the outermost points and the frame, as a factor.
const ROOM: f64 = 1.15;

/// Draws it. Both axes are logarithmic: sizes double, and so do times between lengths.
///
/// # Errors
/// What the plotting library says, or that there is nothing to draw.
pub(super) fn svg(title: &str, found: &Profile) -> Result<String, Box<dyn Error>> {
    let lines: Vec<(usize, Vec<(f64, f64)>)> =
        found.lengths().into_iter().map(|length| (length, points(found, length))).collect();
    let all = || lines.iter().flat_map(|(_, points)| points);
    let most = all().map(|(rows, _)| *rows).fold(1.0, f64::max);
    let low = all().map(|(_, time)| *time).fold(f64::INFINITY, f64::min);
    let high = all().map(|(_, time)| *time).fold(0.0, f64::max);
    if !(low > 0.0 && low.is_finite()) {
        return Err("nothing was measured".into());
    }
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, (920, 500)).into_drawing_area();
        area.fill(&WHITE)?;
        let (area, beside) = area.split_horizontally(780);
        let rows_axis = (1.0 / ROOM..most * ROOM).log_scale();
        let time_axis = (low / ROOM..high * ROOM).log_scale();
        let mut chart = ChartBuilder::on(&area)
            .caption(title, (FONT, 20))
            .margin(14)
            .x_label_area_size(48)
            .y_label_area_size(84)
            .build_cartesian_2d(
                rows_axis.with_key_points(doubled(most)),
                time_axis.with_key_points(rounded(low / ROOM, high * ROOM)),
            )?;
        chart
            .configure_mesh()
            .x_desc("rows in a run")
            .y_desc("time per row")
            .axis_desc_style((FONT, 16))
            .label_style((FONT, 14))
            .bold_line_style(BLACK.mix(0.12))
            .x_label_formatter(&|rows| format!("{rows:.0}"))
            .y_label_formatter(&|seconds| duration(std::time::Duration::from_secs_f64(*seconds)))
            .draw()?;
        // Beside the plot, so that it covers no line.
        for (index, (length, points)) in lines.iter().enumerate() {
            let color = COLORS[index % COLORS.len()];
            chart.draw_series(LineSeries::new(points.clone(), color.stroke_width(2)))?;
            let dots = points.iter().map(|point| Circle::new(*point, 3, color.filled()));
            chart.draw_series(dots)?;
            let top = 60 + 22 * i32::try_from(index)?;
            beside.draw(&PathElement::new([(0, top), (22, top)], color.stroke_width(2)))?;
            let name = format!("length {length}");
            beside.draw(&Text::new(name, (28, top - 6), (FONT, 14)))?;
        }
        area.present()?;
    }
    Ok(svg)
}

/// Rows and seconds per row of a length.
fn points(found: &Profile, length: usize) -> Vec<(f64, f64)> {
    let point = |cell: &crate::worker::warmup::grid::Cell| {
        let rows = f64::from(u32::try_from(cell.rows).unwrap_or(u32::MAX));
        (rows, per_row(cell.time(), cell.rows).as_secs_f64())
    };
    found.of_length(length).map(point).collect()
}

/// 1, 2, 4 and so on up to `most`.
fn doubled(most: f64) -> Vec<f64> {
    std::iter::successors(Some(1.0), |rows| Some(rows * 2.0)).take_while(|it| *it <= most).collect()
}

/// Marks of the times: as few digits as leave several of them between `low` and `high`.
fn rounded(low: f64, high: f64) -> Vec<f64> {
    /// Marks that an axis should have at least.
    const ENOUGH: usize = 4;
    let choices: [&[f64]; 4] =
        [&[1.0], &[1.0, 2.0, 5.0], &[1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.0], &FINE];
    let marks = |steps: &[f64]| -> Vec<f64> {
        let decades = (-9..4).map(|decade| 10.0_f64.powi(decade));
        let all = decades.flat_map(|decade| steps.iter().map(move |step| step * decade));
        all.filter(|mark| (low..=high).contains(mark)).collect()
    };
    let fits = choices.iter().map(|steps| marks(steps)).find(|marks| marks.len() >= ENOUGH);
    fits.unwrap_or_else(|| {
        // Less than a tenth apart: ends and middle.
        vec![low, (low * high).sqrt(), high]
    })
}

/// For curves that are nearly flat.
const FINE: [f64; 30] = [
    1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6, 1.7, 1.8, 1.9, 2.0, 2.2, 2.4, 2.6, 2.8, 3.0, 3.25, 3.5,
    3.75, 4.0, 4.5, 5.0, 5.5, 6.0, 6.5, 7.0, 7.5, 8.0, 8.5, 9.0,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_axis_has_marks_whatever_its_range() {
        for (low, high) in [(1e-5, 1e-2), (1e-3, 2e-3), (1e-3, 1.2e-3), (3e-6, 3.1e-6), (0.5, 40.0)]
        {
            let marks = rounded(low, high);
            assert!((3..=12).contains(&marks.len()), "{low} to {high}: {marks:?}");
            assert!(marks.iter().all(|mark| (low..=high).contains(mark)));
        }
        assert_eq!(doubled(12.0), [1.0, 2.0, 4.0, 8.0]);
    }

    #[test]
    fn nothing_is_no_plot() {
        let error = svg("nothing", &Profile::default()).unwrap_err();
        assert_eq!(error.to_string(), "nothing was measured");
    }
}
