//! What runs cost, as an operator reads it.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};

use crate::access::Caller;
use crate::repository::{Repository, ServedModel};

/// Costs of every model version that serves and that `caller` may know of, as known now.
pub(super) fn describe(repository: &Repository, caller: &Caller) -> Value {
    let index = repository.index();
    let seen = index.iter().filter(|entry| caller.sees(entry.key.name.as_str()));
    let served = seen.filter_map(|entry| entry.state.served());
    json!({ "models": served.map(|model| of_model(model)).collect::<Vec<_>>() })
}

fn of_model(model: &ServedModel) -> Value {
    let costs = model.batcher.costs();
    let points = costs.points();
    let lengths: BTreeSet<usize> = points.iter().map(|point| point.length).collect();
    let row_cost = |length: &usize| {
        let rows = costs.best_rows(*length, costs.most_rows());
        json!({ "length": length, "rows": rows, "micros": micros(costs.per_row(*length)) })
    };
    let points = points.iter().map(|point| {
        let (length, rows, runs) = (point.length, point.rows, point.runs);
        json!({ "length": length, "rows": rows, "micros": micros(point.time), "runs": runs })
    });
    json!({
        "name": model.key.name.as_str(),
        "version": model.key.version.number(),
        "batching": model.config.batching.name(),
        "instances": model.instances(),
        "begun_with": model.costs_from.name(),
        "rows_per_run": model.batcher.rows_per_run(),
        "points": points.collect::<Vec<_>>(),
        "row_costs": lengths.iter().map(row_cost).collect::<Vec<_>>(),
    })
}

/// To a tenth.
fn micros(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e7).round() / 10.0
}
