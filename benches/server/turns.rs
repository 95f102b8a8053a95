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
        found.push([figure / before, figure / after]);
        before = after;
    }
    Ok(steady(found))
}

/// Of shares by the rival before and by the one after, the mean of both, in the half of all rounds where
/// they agree best.
pub(crate) fn steady(mut shares: Vec<[f64; 2]>) -> Vec<f64> {
    let half = shares.len().div_ceil(2);
    let change = |[before, after]: &[f64; 2]| (before - after).abs() / before.max(*after);
    shares.sort_by(|one, other| change(one).total_cmp(&change(other)));
    shares.into_iter().take(half).map(|[before, after]| f64::midpoint(before, after)).collect()
}
