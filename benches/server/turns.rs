//! A figure held against another one, in turns.

/// Figures of `own`, each over the mean of the figures of `rival` before and after it.
///
/// The speed of a machine is not its own, and may be half of what it was a second ago. So only the half
/// of all rounds counts whose two rivals agree best. `say` is told of each round.
///
/// # Errors
/// The first of any load.
pub(crate) fn shares(
    rounds: usize,
    mut own: impl FnMut() -> Result<f64, String>,
    mut rival: impl FnMut() -> Result<f64, String>,
    say: impl Fn(&str),
) -> Result<Vec<f64>, String> {
    let mut before = rival()?;
    let mut found = Vec::with_capacity(rounds);
    for round in 1..=rounds {
        say(&format!("round {round} of {rounds}"));
        let (figure, after) = (own()?, rival()?);
        let change = (before - after).abs() / before.max(after);
        found.push((change, 2.0 * figure / (before + after)));
        before = after;
    }
    found.sort_by(|(one, _), (other, _)| one.total_cmp(other));
    found.truncate(rounds.div_ceil(2));
    Ok(found.into_iter().map(|(_, share)| share).collect())
}
