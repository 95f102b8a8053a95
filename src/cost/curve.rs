//! Time of a run over its rows, for one class of lengths.
//!
//! A list of measured sizes with straight lines between them. Each size remembers how often it was
//! seen: the first few runs count fully, later ones correct it slowly, and no run counts for more
//! than half as long again or half as short again as what is known.

/// Time of a run over its rows.
#[derive(Debug, Clone, Default)]
pub struct Curve {
    /// By rows, rising.
    points: Vec<Point>,
}

#[derive(Debug, Clone, Copy)]
struct Point {
    rows: usize,
    seconds: f64,
    runs: u64,
}

/// Most that one run can differ from what is known, as a logarithm.
const STEP: f64 = 0.4;
/// Share of a run in a size that was seen often.
const GAIN: f64 = 1.0 / 64.0;
/// Runs from which on a size is known.
const KNOWN: u64 = 3;
/// How far off a guess can be, as a factor; beyond it, the run was an accident.
const GUESS: f64 = 4.0;
/// Runs that a careful measurement stands for.
const CAREFUL: u64 = 12;
/// Sizes that differ by so much tell of each other, as a share of a size.
const BESIDE: f64 = 0.5;
/// How far the times of sizes are from the line through those beside them, where nothing varies: steps of
/// kernels, roughly.
const ROUGH: f64 = 0.03;
/// Runs of a size that count among others; by then what is known of it is as sure as it becomes.
const SURE: u64 = 64;

impl Curve {
    pub(super) fn set(&mut self, rows: usize, seconds: f64) {
        let point = Point { rows, seconds, runs: CAREFUL };
        match self.find(rows) {
            Ok(position) => self.points[position] = point,
            Err(position) => self.points.insert(position, point),
        }
    }

    /// Whether `rows` is among sizes that were seen more than once or twice, or between two.
    pub(super) fn knows(&self, rows: usize) -> bool {
        let rows = kept(rows);
        let (below, above) =
            self.points.split_at(self.points.partition_point(|it| it.rows <= rows));
        let seen = |points: &[Point]| points.iter().any(|point| point.runs >= KNOWN);
        let exact = below.last().is_some_and(|point| point.rows == rows && point.runs >= KNOWN);
        exact || (seen(below) && seen(above))
    }

    /// Learns from one run. A size that was not seen before starts from `expected`, so that an
    /// accident does not become a point of its own; from what it took if that was `guessed`.
    pub(super) fn observe(
        &mut self,
        rows: usize,
        seconds: f64,
        expected: Option<f64>,
        guessed: bool,
    ) {
        let rows = kept(rows);
        let position = match self.find(rows) {
            Ok(position) => position,
            Err(position) => {
                let seconds = match expected {
                    Some(expected) if guessed => {
                        expected * (seconds / expected).clamp(1.0 / GUESS, GUESS)
                    }
                    Some(expected) => expected,
                    None => seconds,
                };
                self.points.insert(position, Point { rows, seconds, runs: 0 });
                position
            }
        };
        let point = &mut self.points[position];
        point.runs += 1;
        let seen = u32::try_from(point.runs.min(1000)).unwrap_or(1000);
        let gain = (1.0 / f64::from(seen + 1)).max(GAIN);
        let error = (seconds / point.seconds).ln().clamp(-STEP, STEP);
        point.seconds *= (gain * error).exp();
    }

    /// Time at `rows`, if sizes on both sides of it, or it, are known.
    pub(super) fn within(&self, rows: usize) -> Option<f64> {
        let (first, last) = (self.points.first()?, self.points.last()?);
        (first.rows..=last.rows).contains(&rows).then(|| self.beyond(rows)).flatten()
    }

    /// Time at `rows` for a choice between sizes, if it is [`Curve::within`]. Among many sizes that are
    /// each a little uncertain, the one that looks best is the one whose runs were luckiest: so a size
    /// is also judged by a line through those beside it, the more the fewer runs of its own there were
    /// and the more they vary, as a share: `varies` (shrinkage by variances, as of James and Stein).
    pub(super) fn settled(&self, rows: usize, varies: f64) -> Option<f64> {
        let own = self.within(rows)?;
        let Some(beside) = self.line_around(super::count(rows)) else { return Some(own) };
        let runs = self.find(kept(rows)).map_or(0, |position| self.points[position].runs);
        let runs = f64::from(u32::try_from(runs.min(2 * SURE)).unwrap_or(0));
        // So many runs of its own tell as much as those beside it.
        let worth = (varies / ROUGH).powi(2);
        Some(own + (beside.clamp(own / 2.0, own * 2.0) - own) * worth / (worth + runs.max(1.0)))
    }

    /// Where the line of least squares through the sizes beside `rows` passes it; `None` for fewer than
    /// three sizes.
    fn line_around(&self, rows: f64) -> Option<f64> {
        let at = |point: &Point| super::count(point.rows) - rows;
        let from = self.points.partition_point(|point| at(point) < -BESIDE * rows);
        let to = self.points.partition_point(|point| at(point) <= BESIDE * rows);
        let beside = &self.points[from..to];
        let [mut sum, mut x, mut xx, mut y, mut xy] = [0.0; 5];
        for point in beside {
            let weight = f64::from(u32::try_from(point.runs.min(SURE)).unwrap_or(0));
            let off = at(point);
            (sum, x, xx) = (sum + weight, x + weight * off, xx + weight * off * off);
            (y, xy) = (y + weight * point.seconds, xy + weight * off * point.seconds);
        }
        let spread = sum * xx - x * x;
        (beside.len() >= 3 && spread > 0.0).then(|| (xx * y - x * xy) / spread)
    }

    /// Time at `rows`: between known sizes on the line between them; below the smallest what that
    /// takes; above the largest as the last two sizes go on.
    pub(super) fn beyond(&self, rows: usize) -> Option<f64> {
        match self.in_place(rows) {
            Some(position) => Some(self.points[position].seconds),
            None => self.beyond_real(super::count(rows)),
        }
    }

    /// As [`Curve::beyond`], for a size that need not be whole.
    pub(super) fn beyond_real(&self, rows: f64) -> Option<f64> {
        let last = self.points.last()?;
        let at = |point: &Point| super::count(point.rows);
        let position = self.points.partition_point(|point| at(point) < rows);
        let (left, right) = match (position, self.points.len()) {
            (0, _) => return Some(self.points[0].seconds),
            // Alone, it says only that rows cost what they cost.
            (_, 1) => return Some(last.seconds * rows / at(last)),
            (end, length) if end == length => (&self.points[end - 2], last),
            (position, _) => (&self.points[position - 1], &self.points[position]),
        };
        let slope = (right.seconds - left.seconds) / (at(right) - at(left));
        let time = left.seconds + slope * (rows - at(left));
        // Beyond the end, a disturbed last size must not make larger runs cheaper.
        Some(if rows > at(last) { time.max(last.seconds) } else { time })
    }

    /// How often runs of that size were seen; between two sizes, as often as the less known of them.
    pub(super) fn runs(&self, rows: usize) -> u64 {
        match self.find(kept(rows)) {
            Ok(position) => self.points[position].runs,
            Err(position) if position == 0 || position == self.points.len() => 0,
            Err(position) => self.points[position - 1].runs.min(self.points[position].runs),
        }
    }

    /// The known size that is nearest to `rows`, and its time.
    pub(super) fn nearest(&self, rows: usize) -> Option<(usize, f64)> {
        let point = self.points.iter().min_by_key(|point| point.rows.abs_diff(rows))?;
        Some((point.rows, point.seconds))
    }

    /// The largest known size.
    pub(super) fn largest(&self) -> Option<usize> {
        self.points.last().map(|point| point.rows)
    }

    /// Rows, seconds and runs of each known size, by rows.
    pub fn points(&self) -> impl Iterator<Item = (usize, f64, u64)> {
        self.points.iter().map(|point| (point.rows, point.seconds, point.runs))
    }

    /// Where a size is, without a search, once all below it were seen, as they soon are: several costs
    /// are asked for with every request.
    fn in_place(&self, rows: usize) -> Option<usize> {
        let place = rows.checked_sub(1)?;
        (self.points.get(place)?.rows == rows).then_some(place)
    }

    fn find(&self, rows: usize) -> Result<usize, usize> {
        match self.in_place(rows) {
            Some(position) => Ok(position),
            None => self.points.binary_search_by_key(&rows, |point| point.rows),
        }
    }
}

/// The size under which a run of `rows` is remembered: itself up to 64 rows, then eight to the
/// octave, so that a curve stays small whatever comes.
fn kept(rows: usize) -> usize {
    if rows <= 64 {
        return rows.max(1);
    }
    let step = 1_usize << (rows.ilog2() - 3);
    (rows / step) * step
}
