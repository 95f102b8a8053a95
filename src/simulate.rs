//! Batching policies on virtual time: one model's queue, its instances, requests that come.
//!
//! What a policy is worth shows in figures of many situations, and a real server gives few of them
//! in an hour, never the same twice. Here a run is a time from a curve, so that millions of
//! requests take seconds and a seed repeats exactly. What is left out: threads, sockets, the time
//! that deciding takes. So figures compare policies; they promise nothing of a machine.
//!
//! Pure: no threads, no clock, no files. [`curve`] and [`arrivals`] make a [`scenario`], the
//! [`engine`] lets a [`policy`] serve it and returns what was [`measured`]; [`search`] finds the
//! best fixed settings, [`suite`] compares, [`report`] and [`plot`] show. Below it is only the
//! batcher, whose queue and policy `auto` drives. Used by `onnxd simulate`.
//!
//! # What it shows
//!
//! `onnxd simulate` printed this in ten minutes; goodput is of requests answered in time.
//!
#![doc = include_str!("simulate/table.md")]

pub mod arrivals;
pub mod curve;
pub mod dice;
pub mod engine;
pub mod measured;
pub mod plot;
pub mod policy;
pub mod report;
pub mod scenario;
pub mod search;
pub mod suite;
#[cfg(test)]
mod tests;

/// A count to calculate with.
fn count(number: usize) -> f64 {
    // Nothing here counts to four thousand millions; beyond, the figure is a bound.
    f64::from(u32::try_from(number).unwrap_or(u32::MAX))
}
