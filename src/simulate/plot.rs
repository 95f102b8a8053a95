//! Plots of the sweeps over loads, as SVG.
//!
//! Two for each curve: goodput by load, and p99 by load. Colours are the ones of Okabe and Ito,
//! which people who see few colours can tell apart; each contender has a mark of its own as well.

use std::ops::Range;
use std::time::Duration;

use plotters::coord::Shift;
use plotters::coord::ranged1d::{DefaultFormatting, KeyPointHint};
use plotters::coord::types::RangedCoordf64;
use plotters::drawing::DrawingAreaErrorKind;
use plotters::prelude::*;
use thiserror::Error;

use super::count;
use super::report;
use super::suite::{Compared, Contender, is_swept};

/// A drawing failed.
#[derive(Debug, Error)]
#[error("cannot draw {name}: {reason}")]
pub struct PlotError {
    name: String,
    reason: String,
}

/// A file's name and its text.
pub type File = (String, String);

/// One line.
struct Series {
    contender: Contender,
    /// Place of the load on the axis, and the value.
    points: Vec<(f64, f64)>,
}

/// What a plot shows.
struct Plot<'a> {
    title: String,
    y_label: &'a str,
    loads: Vec<f64>,
    series: Vec<Series>,
}

/// All plots that the comparison has the figures for.
///
/// # Errors
/// [`PlotError`], if a drawing fails.
pub fn all(compared: &[Compared]) -> Result<Vec<File>, PlotError> {
    let swept: Vec<&Compared> = compared.iter().filter(|one| is_swept(&one.scenario)).collect();
    let mut files = Vec::new();
    for sweep in swept.chunk_by(|a, b| a.scenario.curve.name() == b.scenario.curve.name()) {
        let Some(curve) = sweep.first().map(|one| one.scenario.curve.name()) else { continue };
        let goodput = |one: &Compared, contender| Some(one.of(contender).goodput());
        let name = format!("goodput-{curve}.svg");
        let title = format!("{curve}: answers in time, by load");
        let plot = plot(title, "answers in time per second", sweep, goodput);
        let svg = draw(&plot, linear(&plot), &report::number);
        files.push(named(name, svg)?);
        let p99 = |one: &Compared, contender| {
            one.of(contender).quantile(0.99).map(|time| time.as_secs_f64().log10())
        };
        let name = format!("p99-{curve}.svg");
        let title = format!("{curve}: p99 of answers in time, by load");
        let plot = self::plot(title, "latency p99", sweep, p99);
        let svg = draw(&plot, decades(&plot), &|value| {
            report::time(Duration::try_from_secs_f64(10_f64.powf(value)).unwrap_or_default())
        });
        files.push(named(name, svg)?);
    }
    Ok(files)
}

fn named(name: String, svg: Result<String, Box<dyn std::error::Error>>) -> Result<File, PlotError> {
    match svg {
        Ok(svg) => Ok((name, svg)),
        Err(error) => Err(PlotError { name, reason: error.to_string() }),
    }
}

fn plot<'a>(
    title: String,
    y_label: &'a str,
    sweep: &[&Compared],
    value: impl Fn(&Compared, Contender) -> Option<f64>,
) -> Plot<'a> {
    let series = |contender| {
        let places = (0_u32..).map(f64::from);
        let points = places.zip(sweep);
        let points = points.filter_map(|(x, one)| Some((x, value(one, contender)?)));
        Series { contender, points: points.collect() }
    };
    let loads = sweep.iter().map(|one| one.scenario.load).collect();
    Plot { title, y_label, loads, series: Contender::ALL.map(series).into() }
}

fn colour(contender: Contender) -> RGBColor {
    match contender {
        Contender::Auto => RGBColor(0, 114, 178),
        Contender::Off => RGBColor(90, 90, 90),
        Contender::Default => RGBColor(230, 159, 0),
        Contender::Best => RGBColor(0, 158, 115),
        Contender::Aimd => RGBColor(204, 121, 167),
    }
}

fn style(contender: Contender) -> ShapeStyle {
    let width = match contender {
        Contender::Auto | Contender::Off => 2,
        Contender::Best => 4,
        Contender::Default => 6,
        Contender::Aimd => 9,
    };
    colour(contender).stroke_width(width)
}

/// What an axis shows and where it has marks.
struct Axis {
    from: f64,
    to: f64,
    marks: Vec<f64>,
}

impl Ranged for Axis {
    type FormatOption = DefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, limit: (i32, i32)) -> i32 {
        RangedCoordf64::from(self.range()).map(value, limit)
    }

    fn key_points<Hint: KeyPointHint>(&self, _: Hint) -> Vec<f64> {
        self.marks.clone()
    }

    fn range(&self) -> Range<f64> {
        self.from..self.to
    }
}

fn values(plot: &Plot<'_>) -> impl Iterator<Item = f64> {
    plot.series.iter().flat_map(|series| series.points.iter().map(|(_, value)| *value))
}

/// From 0 to a little above the highest, with about six marks at round numbers.
fn linear(plot: &Plot<'_>) -> Axis {
    let most = values(plot).fold(f64::MIN_POSITIVE, f64::max) * 1.05;
    let magnitude = 10_f64.powf((most / 6.0).log10().floor());
    let rough = most / 6.0 / magnitude;
    let step = magnitude
        * if rough > 5.0 {
            10.0
        } else if rough > 2.0 {
            5.0
        } else {
            2.0
        };
    let marks = (0..=6_u32).map(|mark| f64::from(mark) * step).filter(|mark| *mark <= most);
    Axis { from: 0.0, to: most, marks: marks.collect() }
}

/// Powers of ten, as logarithms, with marks at 1, 2 and 5 of each.
fn decades(plot: &Plot<'_>) -> Axis {
    let least = values(plot).fold(f64::INFINITY, f64::min).clamp(-9.0, 9.0);
    let most = values(plot).fold(f64::NEG_INFINITY, f64::max).clamp(least, 9.0);
    let (from, to) = (least - 0.15, most + 0.15);
    let parts = [1.0_f64, 2.0, 5.0].map(f64::log10);
    let powers = (-9_i32..=9).map(f64::from);
    let marks = powers.flat_map(|power| parts.map(|part| power + part));
    Axis { from, to, marks: marks.filter(|mark| (from..=to).contains(mark)).collect() }
}

fn draw(
    plot: &Plot<'_>,
    y: Axis,
    y_text: &dyn Fn(f64) -> String,
) -> Result<String, Box<dyn std::error::Error>> {
    let mut svg = String::new();
    let area = SVGBackend::with_string(&mut svg, (820, 460)).into_drawing_area();
    area.fill(&WHITE)?;
    let (left, right) = area.split_horizontally(680);
    // The steps of the sweep stand at even distances.
    let places: Vec<f64> = (0_u32..).map(f64::from).take(plot.loads.len()).collect();
    let load = |place: &f64| {
        let load = places.iter().zip(&plot.loads).find(|(known, _)| (*known - place).abs() < 0.1);
        load.map_or_else(String::new, |(_, load)| format!("{:.0} %", load * 100.0))
    };
    let x = Axis { from: -0.3, to: count(places.len()) - 0.7, marks: places.clone() };
    let mut chart = ChartBuilder::on(&left)
        .caption(&plot.title, ("sans-serif", 18))
        .margin(12)
        .x_label_area_size(46)
        .y_label_area_size(84)
        .build_cartesian_2d(x, y)?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(RGBColor(225, 225, 225))
        .x_desc("load, as a share of the most that the instances can do")
        .y_desc(plot.y_label)
        .axis_desc_style(("sans-serif", 14))
        .label_style(("sans-serif", 13))
        .x_label_formatter(&load)
        .y_label_formatter(&|value| y_text(*value))
        .draw()?;
    // The one that it is about lies on top; what lies below is wider and stays in sight.
    for series in plot.series.iter().rev() {
        let style = style(series.contender);
        let points = series.points.clone();
        chart.draw_series([PathElement::new(points, style)])?;
        for point in &series.points {
            mark(&left, series.contender, chart.backend_coord(point))?;
        }
    }
    for (row, series) in (0_i32..).zip(&plot.series) {
        let (y, style) = (60 + 26 * row, style(series.contender));
        right.draw(&PathElement::new([(0, y), (28, y)], style))?;
        mark(&right, series.contender, (14, y))?;
        let text = series.contender.label();
        right.draw(&Text::new(text, (36, y - 6), ("sans-serif", 14)))?;
    }
    area.present()?;
    drop((chart, left, right, area));
    Ok(svg)
}

/// Each contender's own mark.
fn mark<B: DrawingBackend>(
    area: &DrawingArea<B, Shift>,
    contender: Contender,
    at: (i32, i32),
) -> Result<(), DrawingAreaErrorKind<B::ErrorType>> {
    let colour = colour(contender);
    match contender {
        Contender::Auto => area.draw(&Circle::new(at, 4, colour.filled())),
        Contender::Off => area.draw(&Cross::new(at, 6, colour.stroke_width(2))),
        Contender::Default => area.draw(&TriangleMarker::new(at, 9, colour.filled())),
        Contender::Best => {
            let corners = [(at.0 - 5, at.1 - 5), (at.0 + 5, at.1 + 5)];
            area.draw(&Rectangle::new(corners, colour.filled()))
        }
        Contender::Aimd => area.draw(&Circle::new(at, 10, colour.stroke_width(2))),
    }
}
