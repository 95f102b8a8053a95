//! Probabilities over time as one line of characters with an axis below.

/// Widest plot, in characters.
pub(super) const WIDTH: usize = 80;
/// From 0 to 1.
const LEVELS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
/// Least distance of two marks, in characters: room for a label.
const MARK_DISTANCE: usize = 9;

/// Two lines: `values` (from 0 to 1, `value_ms` milliseconds apart) and the time in seconds. Where
/// several values share a character it shows the largest, so that nothing short is lost.
pub(super) fn lines(values: &[f32], value_ms: usize) -> (String, String) {
    let columns = values.len().min(WIDTH);
    let column = |index: usize| {
        let range = index * values.len() / columns..(index + 1) * values.len() / columns;
        level(values[range].iter().copied().fold(0.0, f32::max))
    };
    let blocks = (0..columns).map(column).collect();
    (blocks, axis(columns, values.len() * value_ms))
}

fn level(value: f32) -> char {
    // How many of the seven borders between the levels are reached.
    let reached = (1_u8..8).filter(|border| value * 8.0 >= f32::from(*border)).count();
    LEVELS[reached]
}

/// Marks at round times, each with its label behind it where there is room.
fn axis(columns: usize, length_ms: usize) -> String {
    let mut line = vec![' '; columns];
    let Some(step) = step_ms(columns, length_ms) else { return String::new() };
    for mark in (0..length_ms).step_by(step) {
        let at = mark * columns / length_ms;
        let label = match mark % 1000 {
            0 => format!("╵{} s", mark / 1000),
            rest => format!("╵{}.{} s", mark / 1000, rest / 100),
        };
        if at + label.chars().count() <= columns {
            line.splice(at..at + label.chars().count(), label.chars());
        }
    }
    line.into_iter().collect::<String>().trim_end().to_owned()
}

/// The smallest of 0.1, 0.2, 0.5, 1, 2, 5, … seconds that keeps marks apart.
fn step_ms(columns: usize, length_ms: usize) -> Option<usize> {
    let decades = std::iter::successors(Some(100_usize), |decade| decade.checked_mul(10));
    let steps = decades.flat_map(|decade| [1, 2, 5].map(|factor| decade.checked_mul(factor)));
    steps.flatten().find(|step| columns > 0 && step * columns >= MARK_DISTANCE * length_ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_cover_the_range() {
        let values = [-1.0, 0.0, 0.124, 0.125, 0.5, 0.874, 0.875, 1.0, 2.0];
        let all = String::from_iter(values.map(level));
        assert_eq!(all, "▁▁▁▂▅▇███");
        assert_eq!(level(f32::NAN), '▁');
    }

    #[test]
    fn a_short_plot_has_a_character_for_each_value() {
        let values = [0.0, 0.0, 1.0, 1.0, 0.5, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0];
        let (blocks, axis) = lines(&values, 100);
        assert_eq!(blocks, "▁▁██▅▁▁▁▁▁▁▁");
        assert_eq!(axis, "╵0 s");
    }

    #[test]
    fn a_long_plot_is_squeezed_and_keeps_what_is_short() {
        let mut values = vec![0.0; 188];
        values[95] = 1.0;
        let (blocks, axis) = lines(&values, 32);
        assert_eq!(blocks.chars().count(), WIDTH);
        assert_eq!(blocks.chars().position(|block| block == '█'), Some(40));
        assert_eq!(axis, "╵0 s         ╵1 s         ╵2 s         ╵3 s          ╵4 s         ╵5 s");
    }

    #[test]
    fn no_length_breaks_it() {
        for count in [0, 1, 2, 79, 80, 81, 1000, 112_500, 3_000_000] {
            let (blocks, axis) = lines(&vec![0.3; count], 32);
            assert_eq!(blocks.chars().count(), count.min(WIDTH));
            assert!(axis.chars().count() <= WIDTH && axis.matches('╵').count() <= 9, "{axis}");
        }
    }
}
