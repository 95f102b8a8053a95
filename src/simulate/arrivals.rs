//! When requests come, how long their callers wait and how many rows they bring.
//!
//! All processes have the same mean rate, so that a load means the same whatever its shape. A
//! trace is made before a simulation and shared by all policies that are compared on it. Open
//! loops only: callers that wait for an answer before they ask again would ask a slow server less.

use std::time::Duration;

use super::count;
use super::dice::Dice;

/// How requests come.
#[derive(Debug, Clone, PartialEq)]
pub enum Arrivals {
    /// At random, knowing nothing of each other.
    Poisson,
    /// At random in two moods that change at random: bursts and quiet times.
    Bursty {
        /// Rate in a burst, by the mean rate.
        factor: f64,
        /// Share of time that is burst; `factor * share` is at most 1.
        share: f64,
        /// Mean length of a burst.
        burst: Duration,
    },
    /// A rate that swings like a day.
    Diurnal {
        /// How far the rate swings from its mean; 1 swings down to nothing.
        swing: f64,
        /// Length of a day.
        period: Duration,
    },
    /// Everything at once, every so often.
    Volleys {
        /// Time between two volleys.
        every: Duration,
    },
    /// Twice the rate for half of each period, nothing for the other half.
    Square {
        /// Length of both halves.
        period: Duration,
    },
}

/// How long callers wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deadlines {
    /// All the same.
    One(Duration),
    /// Two classes, half of the requests each.
    Mix {
        /// Limit of the hasty ones.
        tight: Duration,
        /// Limit of the patient ones.
        loose: Duration,
    },
    /// Evenly spread.
    Uniform {
        /// Shortest limit.
        from: Duration,
        /// Longest limit.
        to: Duration,
    },
    /// Callers state none; an answer counts within [`Deadlines::PATIENCE`].
    None,
}

/// How many rows a request has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rows {
    /// All the same.
    Each(u32),
    /// Drawn from these, all as likely.
    Mix(Vec<u32>),
}

impl Arrivals {
    /// Moments of `number` arrivals, in order, on average `rate` of them a second.
    pub fn times(&self, rate: f64, number: usize, dice: &mut Dice) -> Vec<Duration> {
        match *self {
            Self::Poisson => phases(number, dice, |_| (rate, f64::INFINITY)),
            Self::Bursty { factor, share, burst } => {
                let high = rate * factor;
                let low = rate * (1.0 - factor * share).max(0.0) / (1.0 - share);
                let mean = burst.as_secs_f64();
                let rest = mean * (1.0 - share) / share;
                let mut bursts = false;
                phases(number, dice, |dice| {
                    bursts = !bursts;
                    let (rate, mean) = if bursts { (high, mean) } else { (low, rest) };
                    (rate, mean * dice.exponential())
                })
            }
            Self::Square { period } => {
                let half = period.as_secs_f64() / 2.0;
                let mut on = false;
                phases(number, dice, |_| {
                    on = !on;
                    (if on { 2.0 * rate } else { 0.0 }, half)
                })
            }
            Self::Diurnal { swing, period } => diurnal(rate, swing, period, number, dice),
            Self::Volleys { every } => {
                let volley = (rate * every.as_secs_f64()).round().max(1.0);
                let at = |index| ((count(index) / volley).floor() + 1.0) * volley / rate;
                (0..number).map(|index| Duration::from_secs_f64(at(index))).collect()
            }
        }
    }

    /// After how long it repeats, on average; zero if it does not.
    pub fn period(&self) -> Duration {
        match *self {
            Self::Poisson => Duration::ZERO,
            Self::Bursty { share, burst, .. } => burst.mul_f64(1.0 / share),
            Self::Diurnal { period, .. } | Self::Square { period } => period,
            Self::Volleys { every } => every,
        }
    }

    /// One word.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Poisson => "poisson",
            Self::Bursty { .. } => "bursty",
            Self::Diurnal { .. } => "diurnal",
            Self::Volleys { .. } => "volleys",
            Self::Square { .. } => "square",
        }
    }
}

/// Arrivals at random whose rate changes from phase to phase. `next` gives the rate and the length
/// of the phase that begins.
fn phases(
    number: usize,
    dice: &mut Dice,
    mut next: impl FnMut(&mut Dice) -> (f64, f64),
) -> Vec<Duration> {
    let mut times = Vec::with_capacity(number);
    let mut now = 0.0;
    let (mut rate, length) = next(dice);
    let mut end = now + length;
    while times.len() < number {
        // What is left of a gap when the rate changes is forgotten: such a process has no memory.
        let at = now + dice.exponential() / rate;
        if at < end {
            now = at;
            times.push(Duration::from_secs_f64(at));
        } else {
            now = end;
            let (new_rate, length) = next(dice);
            rate = new_rate;
            end = now + length;
        }
    }
    times
}

/// Draws at the highest rate and leaves out what is above the rate of the moment.
fn diurnal(
    rate: f64,
    swing: f64,
    period: Duration,
    number: usize,
    dice: &mut Dice,
) -> Vec<Duration> {
    let mut times = Vec::with_capacity(number);
    let mut now = 0.0;
    while times.len() < number {
        now += dice.exponential() / (rate * (1.0 + swing));
        let phase = std::f64::consts::TAU * now / period.as_secs_f64();
        if dice.unit() * (1.0 + swing) <= 1.0 + swing * phase.sin() {
            times.push(Duration::from_secs_f64(now));
        }
    }
    times
}

impl Deadlines {
    /// How long an answer counts where its caller states nothing.
    pub const PATIENCE: Duration = Duration::from_secs(30);

    /// Limit of the next request.
    pub fn draw(self, dice: &mut Dice) -> Duration {
        match self {
            Self::Mix { tight, loose } => {
                if dice.unit() <= 0.5 {
                    tight
                } else {
                    loose
                }
            }
            Self::Uniform { from, to } => from + to.saturating_sub(from).mul_f64(dice.unit()),
            Self::One(_) | Self::None => self.loosest(),
        }
    }

    /// Shortest limit.
    pub fn tightest(self) -> Duration {
        match self {
            Self::One(limit) | Self::Mix { tight: limit, .. } => limit,
            Self::Uniform { from, .. } => from,
            Self::None => Self::PATIENCE,
        }
    }

    /// Longest limit.
    pub fn loosest(self) -> Duration {
        match self {
            Self::One(limit) | Self::Mix { loose: limit, .. } => limit,
            Self::Uniform { to, .. } => to,
            Self::None => Self::PATIENCE,
        }
    }
}

impl Rows {
    /// Rows of the next request.
    pub fn draw(&self, dice: &mut Dice) -> u32 {
        match self {
            Self::Each(rows) => *rows,
            Self::Mix(choices) => {
                let share = 1.0 / count(choices.len());
                let mut left = dice.unit();
                let chosen = choices.iter().find(|_| {
                    left -= share;
                    left <= 0.0
                });
                chosen.or_else(|| choices.last()).copied().unwrap_or(1)
            }
        }
    }

    /// Mean rows of a request.
    pub fn mean(&self) -> f64 {
        match self {
            Self::Each(rows) => f64::from(*rows),
            Self::Mix(choices) => {
                let sum: f64 = choices.iter().map(|rows| f64::from(*rows)).sum();
                sum / count(choices.len().max(1))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Arrivals, Deadlines, Rows};
    use crate::simulate::dice::Dice;
    use std::time::Duration;

    fn ms(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    #[test]
    fn all_processes_come_in_order_at_the_mean_rate() {
        let processes = [
            Arrivals::Poisson,
            Arrivals::Bursty { factor: 3.0, share: 0.25, burst: ms(5) },
            Arrivals::Diurnal { swing: 0.8, period: ms(500) },
            Arrivals::Volleys { every: ms(20) },
            Arrivals::Square { period: ms(40) },
        ];
        for arrivals in processes {
            let times = arrivals.times(10_000.0, 50_000, &mut Dice::new(3));
            assert_eq!(times.len(), 50_000);
            assert!(times.is_sorted(), "{arrivals:?}");
            let seconds = times.last().unwrap().as_secs_f64();
            assert!((seconds - 5.0).abs() < 0.35, "{arrivals:?}: {seconds}");
        }
    }

    #[test]
    fn volleys_come_at_one_instant_and_squares_leave_gaps() {
        let volleys = Arrivals::Volleys { every: ms(20) }.times(1000.0, 60, &mut Dice::new(1));
        let instants: Vec<_> = volleys.chunk_by(|a, b| a == b).map(|v| (v[0], v.len())).collect();
        assert_eq!(instants, [(ms(20), 20), (ms(40), 20), (ms(60), 20)]);
        let square = Arrivals::Square { period: ms(100) };
        for at in square.times(1000.0, 2000, &mut Dice::new(1)) {
            assert!(at.as_millis() % 100 < 50, "{at:?}");
        }
    }

    #[test]
    fn bursts_are_burstier_than_chance() {
        // Variance by mean of counts in slots of 1 ms: 1 for Poisson, more for bursts.
        let dispersion = |arrivals: &Arrivals| {
            let times = arrivals.times(10_000.0, 50_000, &mut Dice::new(9));
            let mut slots = vec![0_u32; 10_000];
            for at in times {
                slots[usize::try_from(at.as_millis()).unwrap()] += 1;
            }
            let slots = &slots[..4000];
            let mean = slots.iter().map(|n| f64::from(*n)).sum::<f64>() / 4000.0;
            slots.iter().map(|n| (f64::from(*n) - mean).powi(2)).sum::<f64>() / 4000.0 / mean
        };
        assert!((dispersion(&Arrivals::Poisson) - 1.0).abs() < 0.1);
        assert!(dispersion(&Arrivals::Bursty { factor: 3.0, share: 0.25, burst: ms(5) }) > 5.0);
    }

    #[test]
    fn limits_and_rows_are_drawn_from_what_was_given() {
        let mut dice = Dice::new(5);
        let mix = Deadlines::Mix { tight: ms(3), loose: ms(8) };
        let tight = (0..1000).filter(|_| mix.draw(&mut dice) == ms(3)).count();
        assert!((440..560).contains(&tight), "{tight}");
        let uniform = Deadlines::Uniform { from: ms(3), to: ms(8) };
        let drawn: Vec<Duration> = (0..1000).map(|_| uniform.draw(&mut dice)).collect();
        assert!(drawn.iter().all(|limit| (ms(3)..=ms(8)).contains(limit)));
        assert!(drawn.iter().any(|limit| *limit < ms(4)));
        assert!(drawn.iter().any(|limit| *limit > ms(7)));
        assert_eq!(Deadlines::None.draw(&mut dice), Deadlines::PATIENCE);
        let rows = Rows::Mix(vec![1, 1, 4]);
        let sum: u32 = (0..3000).map(|_| rows.draw(&mut dice)).sum();
        assert!((5700..6300).contains(&sum), "{sum}");
        assert!((rows.mean() - 2.0).abs() < 1e-9);
    }
}
