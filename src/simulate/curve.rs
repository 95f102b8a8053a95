//! What a run costs: time by rows.
//!
//! A curve is a table of times for 1 row up to its top. Some are built in, in the shapes that
//! models were measured to have; others come from a file, so that a model of one's own can be
//! tried. Below its top a curve is straight between its points; above, each row costs what it
//! costs at the top.

use std::time::Duration;

use serde::Deserialize;
use thiserror::Error;

use super::count;

/// Most rows that a table may speak of.
const MOST_ROWS: u32 = 65_536;

/// Time of a run by its rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Curve {
    name: String,
    /// Times of 1, 2, … rows; never empty.
    times: Vec<Duration>,
}

/// One measured point.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Point {
    /// Rows of the run.
    pub rows: u32,
    /// Time of the run, in microseconds.
    pub micros: f64,
}

/// Why a table is no curve.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CurveError {
    /// The text is not what a curve's file looks like.
    #[error("{0}")]
    Syntax(String),
    /// There is nothing in it.
    #[error("expected at least one point")]
    Empty,
    /// Rows do not grow from point to point, or are out of range.
    #[error("expected rows that grow, from 1 to {MOST_ROWS}; got {0}")]
    Rows(u32),
    /// A time is not one.
    #[error("expected a time above 0 for {0} rows")]
    Time(u32),
}

/// A curve's file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    name: Option<String>,
    points: Vec<Point>,
}

impl Curve {
    /// Names of the curves that are built in.
    pub const NAMES: [&str; 7] = ["tiny", "rank", "magika", "silero", "image", "gpu", "steps"];

    /// The built-in curve `name`.
    pub fn named(name: &str) -> Option<Self> {
        Some(match name {
            // A few layers: nearly all of the time is the call itself.
            "tiny" => Self::straight(name, &[(1, 4.7), (64, 12.5)]),
            // Ranking over dense features: 3,850 rows a second alone, 42,500 together.
            "rank" => Self::straight(name, &[(1, 260.0), (4, 260.0), (64, 1505.7)]),
            // A row gets dearer with company: the caches are full already.
            "magika" => Self::by_rows(name, 64, |rows| {
                rows * (6300.0 + (8500.0 - 6300.0) * (rows - 1.0) / 63.0)
            }),
            // Short audio frames: a third of the time per row from 32 rows on.
            "silero" => Self::straight(name, &[(1, 150.0), (32, 1600.0), (64, 3200.0)]),
            // Convolutions that fill the processor with one picture.
            "image" => Self::by_rows(name, 64, |rows| {
                rows * (2800.0 + 150.0 * ((rows - 16.0) / 48.0).max(0.0))
            }),
            // A large accelerator: free up to 16 rows, nearly free up to 64.
            "gpu" => {
                Self::straight(name, &[(1, 2000.0), (16, 2000.0), (64, 2600.0), (256, 8000.0)])
            }
            // Kernels that fill tiles of 8 rows: the ninth row costs as much as the next eight.
            "steps" => Self::by_rows(name, 64, |rows| 400.0 + 600.0 * (rows / 8.0).ceil()),
            _ => return None,
        })
    }

    /// A curve that is straight between points, given as rows and microseconds.
    ///
    /// # Errors
    /// [`CurveError`], if rows do not grow or a time is not above 0.
    pub fn through(name: &str, points: &[Point]) -> Result<Self, CurveError> {
        let mut last_rows = 0;
        for point in points {
            if point.rows <= last_rows || point.rows > MOST_ROWS {
                return Err(CurveError::Rows(point.rows));
            }
            // Longer than a day is a slip of units.
            if !(point.micros > 0.0 && point.micros < 86_400e6) {
                return Err(CurveError::Time(point.rows));
            }
            last_rows = point.rows;
        }
        let (Some(first), Some(last)) = (points.first(), points.last()) else {
            return Err(CurveError::Empty);
        };
        Ok(Self::by_rows(name, last.rows, |rows| {
            let after = points.partition_point(|point| f64::from(point.rows) < rows);
            let (Some(right), Some(left)) = (points.get(after), points.get(after.wrapping_sub(1)))
            else {
                return first.micros;
            };
            let width = f64::from(right.rows) - f64::from(left.rows);
            let share = (rows - f64::from(left.rows)) / width;
            left.micros + (right.micros - left.micros) * share
        }))
    }

    /// Reads a curve's file: TOML with `points`, each with `rows` and `micros`, and a `name` unless
    /// `file_name` is to be it.
    ///
    /// # Errors
    /// [`CurveError`], if the text is not such a file.
    pub fn parse(file_name: &str, text: &str) -> Result<Self, CurveError> {
        let table: Table =
            toml::from_str(text).map_err(|error| CurveError::Syntax(error.to_string()))?;
        Self::through(table.name.as_deref().unwrap_or(file_name), &table.points)
    }

    fn straight(name: &str, points: &[(u32, f64)]) -> Self {
        let points: Vec<Point> =
            points.iter().map(|(rows, micros)| Point { rows: *rows, micros: *micros }).collect();
        Self::through(name, &points).unwrap_or_else(|_| unreachable!("built-in points are right"))
    }

    fn by_rows(name: &str, top: u32, micros: impl Fn(f64) -> f64) -> Self {
        let time = |rows| Duration::from_secs_f64(micros(f64::from(rows)) * 1e-6);
        Self { name: name.to_owned(), times: (1..=top.max(1)).map(time).collect() }
    }

    /// What the curve is called.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Most rows that the curve was measured for.
    pub fn top(&self) -> u32 {
        u32::try_from(self.times.len()).unwrap_or(MOST_ROWS)
    }

    /// Time of a run of `rows` rows.
    pub fn time(&self, rows: u32) -> Duration {
        let rows = rows.max(1);
        let top = self.top();
        let index = |rows: u32| usize::try_from(rows - 1).unwrap_or(usize::MAX);
        match self.times.get(index(rows)) {
            Some(time) => *time,
            None => self.times[index(top)].mul_f64(f64::from(rows) / f64::from(top)),
        }
    }

    /// Rows of the run that does the most rows in a time; the fewest among equals.
    pub fn best_rows(&self) -> u32 {
        let mut best = 1;
        for rows in 2..=self.top() {
            // A hair's breadth is rounding, not a gain.
            if self.speed(rows) > self.speed(best) * (1.0 + 1e-9) {
                best = rows;
            }
        }
        best
    }

    /// Time of the run that does the most rows in a time.
    pub fn best_time(&self) -> Duration {
        self.time(self.best_rows())
    }

    /// Most rows a second that `instances` can do.
    pub fn capacity(&self, instances: usize) -> f64 {
        self.speed(self.best_rows()) * count(instances)
    }

    /// Rows a second in runs of `rows` rows.
    fn speed(&self, rows: u32) -> f64 {
        f64::from(rows) / self.time(rows).as_secs_f64()
    }
}

#[cfg(test)]
mod tests {
    use super::{Curve, CurveError};
    use std::time::Duration;

    fn micros(count: u64) -> Duration {
        Duration::from_micros(count)
    }

    #[test]
    fn built_in_curves_have_the_figures_that_were_measured() {
        let named = |name| Curve::named(name).unwrap();
        let speed = |curve: &Curve, rows| f64::from(rows) / curve.time(rows).as_secs_f64();
        let rank = named("rank");
        assert_eq!((rank.time(1), rank.time(4)), (micros(260), micros(260)));
        assert!((speed(&rank, 1) - 3850.0).abs() < 10.0);
        assert!((speed(&rank, 64) - 42_504.0).abs() < 10.0);
        let magika = named("magika");
        assert_eq!((magika.time(1), magika.time(64)), (micros(6300), micros(64 * 8500)));
        assert_eq!(magika.best_rows(), 1);
        let silero = named("silero");
        let gain = speed(&silero, 32) / speed(&silero, 1);
        assert!((gain - 3.0).abs() < 0.01, "{gain}");
        assert_eq!(silero.best_rows(), 32);
        assert_eq!(named("image").best_rows(), 1);
        assert_eq!(named("gpu").best_rows(), 256);
        let steps = named("steps");
        assert_eq!((steps.time(8), steps.time(9)), (micros(1000), micros(1600)));
        for name in Curve::NAMES {
            assert_eq!(named(name).name(), name);
        }
        assert_eq!(Curve::named("none"), None);
    }

    #[test]
    fn a_file_gives_a_curve_that_is_straight_between_its_points() {
        let text = "points = [{ rows = 2, micros = 100 }, { rows = 4, micros = 140.0 }]";
        let curve = Curve::parse("mine", text).unwrap();
        assert_eq!(curve.name(), "mine");
        let times = [1, 2, 3, 4, 8].map(|rows| curve.time(rows));
        assert_eq!(times, [100, 100, 120, 140, 280].map(micros));
        assert!((curve.capacity(2) - 2.0 * 4.0 / 140e-6).abs() < 1.0);
        let named = format!("name = \"other\"\n{text}");
        assert_eq!(Curve::parse("mine", &named).unwrap().name(), "other");
    }

    #[test]
    fn what_is_no_curve_is_refused_by_name() {
        let parse = |points: &str| Curve::parse("x", &format!("points = [{points}]")).unwrap_err();
        assert_eq!(parse(""), CurveError::Empty);
        assert_eq!(parse("{ rows = 0, micros = 1 }"), CurveError::Rows(0));
        assert_eq!(parse("{ rows = 3, micros = 0 }"), CurveError::Time(3));
        let back = "{ rows = 3, micros = 1 }, { rows = 3, micros = 2 }";
        assert_eq!(parse(back), CurveError::Rows(3));
        assert!(matches!(parse("{ rows = 3, millis = 1 }"), CurveError::Syntax(_)));
    }
}
