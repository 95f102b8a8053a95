//! A profile as a table.

use std::time::Duration;

use crate::cost::file::MeasuredOn;
use crate::model::ModelKey;
use crate::repository::profile::Profile;

/// The whole table, with what it was measured on above and what else there is to know below.
pub(super) fn text(key: &ModelKey, on: &MeasuredOn, found: &Profile) -> String {
    let threads = if on.intra_op_threads == 1 { "thread" } else { "threads" };
    let machine = if on.gpus.is_empty() { &on.processor } else { &on.gpus };
    let mut lines = vec![
        format!(
            "{key}: {}, {} {threads}, {}, {machine}",
            on.provider, on.intra_op_threads, on.runtime
        ),
        format!(
            "{:>6} {:>9} {:>11} {:>13} {:>10} {:>7}",
            "rows", "length", "time", "time per row", "rows/s", "runs"
        ),
    ];
    for length in found.lengths() {
        let best = found.best_rows(length);
        let mut between = found.of_length(length).all(|cell| cell.rows != best);
        for cell in found.of_length(length) {
            let (rows, time) = (cell.rows, cell.time());
            if between && rows > best {
                between = false;
                lines.push(format!("{best:>6} {length:>9}  <- best, between sizes that were run"));
            }
            let mark = if rows == best { "  <- best" } else { "" };
            lines.push(format!(
                "{rows:>6} {length:>9} {:>11} {:>13} {:>10} {:>7}{mark}",
                duration(time),
                duration(per_row(time, rows)),
                rate(time, rows),
                cell.runs(),
            ));
        }
    }
    lines.push(
        "time is the lower quartile of a size's runs; best is what a server would run of that \
         length if enough rows wait"
            .to_owned(),
    );
    for out in &found.measured.left_out {
        let (length, rows, reason) = (out.length, out.rows, &out.reason);
        lines.push(format!("left out: length {length} from {rows} rows on: {reason}"));
    }
    lines.extend(found.notes.iter().map(|note| format!("note: {note}")));
    lines.join("\n")
}

/// What one row takes.
pub(super) fn per_row(time: Duration, rows: usize) -> Duration {
    time / u32::try_from(rows).unwrap_or(u32::MAX).max(1)
}

/// A time with the unit that suits it.
pub(super) fn duration(time: Duration) -> String {
    let micros = time.as_secs_f64() * 1e6;
    let (number, unit) = match micros {
        _ if micros < 1000.0 => (micros, "us"),
        _ if micros < 1e6 => (micros / 1000.0, "ms"),
        _ => (micros / 1e6, "s"),
    };
    format!("{} {unit}", digits(number))
}

fn rate(time: Duration, rows: usize) -> String {
    let per_row = per_row(time, rows).as_secs_f64();
    if per_row > 0.0 { digits(1.0 / per_row) } else { "-".to_owned() }
}

/// Three digits that say something.
fn digits(number: f64) -> String {
    match number {
        _ if number < 10.0 => format!("{number:.2}"),
        _ if number < 100.0 => format!("{number:.1}"),
        _ => format!("{number:.0}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_three_digits_and_a_unit() {
        let said = |micros| duration(Duration::from_micros(micros));
        assert_eq!([said(7), said(45), said(999)], ["7.00 us", "45.0 us", "999 us"]);
        assert_eq!([said(1500), said(123_456)], ["1.50 ms", "123 ms"]);
        assert_eq!(said(2_500_000), "2.50 s");
        assert_eq!(rate(Duration::from_millis(4), 8), "2000");
        assert_eq!(rate(Duration::ZERO, 8), "-");
    }
}
