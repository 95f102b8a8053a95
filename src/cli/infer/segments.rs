//! From probabilities of speech to stretches of speech, as the package of the model does it.
//!
//! Speech begins with a window at [`THRESHOLD`] and ends before a pause: windows below
//! [`LOWER_THRESHOLD`] for [`MIN_SILENCE`]. What is too short is dropped, the rest is widened.
//!
//! Source: silero-vad 6.2.3, `get_speech_timestamps_from_probs` with its defaults.

/// Samples in a second.
pub(super) const RATE: usize = 16_000;
/// Samples that one probability is about: 32 ms.
pub(super) const WINDOW: usize = 512;

/// Speech begins here.
const THRESHOLD: f64 = 0.5;
/// Speech goes on until here, so that it does not flicker.
const LOWER_THRESHOLD: f64 = 0.35;
/// Shorter speech is noise: 250 ms.
const MIN_SPEECH: usize = RATE / 4;
/// Shorter silence is a pause for breath: 100 ms.
const MIN_SILENCE: usize = RATE / 10;
/// What is added on both sides, so that no sound is cut: 30 ms.
const MARGIN: usize = RATE * 30 / 1000;

/// A stretch of speech, in samples from the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) start: usize,
    /// The first sample behind it.
    pub(super) end: usize,
}

/// The speech in a recording of `samples` samples, given the probability of each window.
pub(super) fn find(probabilities: &[f32], samples: usize) -> Vec<Segment> {
    let mut found = Vec::new();
    // Where the speech began that we are in, and where it may have ended.
    let mut current: Option<(usize, Option<usize>)> = None;
    for (window, probability) in probabilities.iter().enumerate() {
        let (now, probability) = (window * WINDOW, f64::from(*probability));
        current = match current {
            None if probability >= THRESHOLD => Some((now, None)),
            None => None,
            Some((start, _)) if probability >= THRESHOLD => Some((start, None)),
            Some((start, pause)) if probability < LOWER_THRESHOLD => {
                let end = pause.unwrap_or(now);
                if now - end < MIN_SILENCE {
                    Some((start, Some(end)))
                } else {
                    keep(&mut found, start, end);
                    None
                }
            }
            between @ Some(_) => between,
        };
    }
    if let Some((start, _)) = current {
        keep(&mut found, start, samples);
    }
    widen(&mut found, samples);
    found
}

fn keep(found: &mut Vec<Segment>, start: usize, end: usize) {
    if end.saturating_sub(start) > MIN_SPEECH {
        found.push(Segment { start, end });
    }
}

/// Neighbours that are close share the silence between them.
fn widen(found: &mut [Segment], samples: usize) {
    let mut from = 0;
    for index in 0..found.len() {
        let next = found.get(index + 1).map(|next| next.start);
        let Segment { start, end } = &mut found[index];
        *start = match index {
            0 => start.saturating_sub(MARGIN),
            _ => from,
        };
        let silence = next.map(|next| next - *end);
        let grown = silence.map_or(MARGIN, |silence| MARGIN.min(silence / 2));
        *end = samples.min(*end + grown);
        from = next.map_or(samples, |next| next - grown);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Windows with the probabilities of `runs`, given as (how many, how likely).
    fn windows(runs: &[(usize, f32)]) -> Vec<f32> {
        runs.iter().flat_map(|(count, value)| std::iter::repeat_n(*value, *count)).collect()
    }

    fn found(runs: &[(usize, f32)]) -> Vec<(usize, usize)> {
        let probabilities = windows(runs);
        let found = find(&probabilities, probabilities.len() * WINDOW);
        found.iter().map(|segment| (segment.start, segment.end)).collect()
    }

    #[test]
    fn speech_is_widened_on_both_sides() {
        assert_eq!(
            found(&[(10, 0.1), (20, 0.9), (10, 0.1)]),
            [(10 * WINDOW - 480, 30 * WINDOW + 480)]
        );
    }

    #[test]
    fn a_pause_of_four_windows_ends_nothing_and_five_do() {
        // The fifth silent window begins 2048 samples after the first.
        let pause = |silent| found(&[(20, 0.9), (silent, 0.1), (20, 0.9)]);
        assert_eq!(pause(4).len(), 1);
        assert_eq!(pause(5).len(), 2);
    }

    #[test]
    fn between_the_thresholds_the_state_stays() {
        assert_eq!(found(&[(20, 0.9), (20, 0.4), (20, 0.1)]), [(0, 40 * WINDOW + 480)]);
        assert_eq!(found(&[(20, 0.4)]), []);
    }

    #[test]
    fn a_pause_is_counted_from_its_first_silent_window() {
        let runs = [(20, 0.9), (1, 0.1), (3, 0.4), (1, 0.1), (20, 0.1)];
        assert_eq!(found(&runs), [(0, 20 * WINDOW + 480)]);
    }

    #[test]
    fn a_click_is_no_speech() {
        // 7 windows are 3584 samples, 8 are 4096; 4000 are asked for.
        assert_eq!(found(&[(5, 0.1), (7, 0.9), (10, 0.1)]), []);
        assert_eq!(found(&[(5, 0.1), (8, 0.9), (10, 0.1)]).len(), 1);
    }

    #[test]
    fn speech_until_the_end_ends_with_the_recording() {
        let probabilities = windows(&[(5, 0.1), (20, 0.9)]);
        let samples = 25 * WINDOW - 100;
        let segment = Segment { start: 5 * WINDOW - 480, end: samples };
        assert_eq!(find(&probabilities, samples), [segment]);
    }

    #[test]
    fn margins_never_overlap() {
        let probabilities = windows(&[(20, 0.9), (5, 0.1), (20, 0.9), (5, 0.1), (20, 0.9)]);
        let found = find(&probabilities, probabilities.len() * WINDOW);
        assert_eq!(found.len(), 3);
        assert!(found.windows(2).all(|pair| pair[0].end <= pair[1].start));
        assert_eq!(find(&[], 0), []);
    }
}
