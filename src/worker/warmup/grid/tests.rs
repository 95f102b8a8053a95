//! Which sizes and lengths are tried, and what counts as their time.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::error::ExecuteError;
use crate::job::Stop;
use crate::model::ragged::Ragged;
use crate::tensor::rows::{Joined, Pad};
use crate::tensor::{DataType, Fill};
use crate::worker::Run;

static NONE_GIVEN: BTreeMap<String, Vec<i64>> = BTreeMap::new();
static NO_VALUES: BTreeMap<String, String> = BTreeMap::new();

fn dim(text: &str) -> Dim {
    match text.parse() {
        Ok(size) if size >= 0 => Dim::Fixed(size),
        Ok(_) => Dim::Dynamic(None),
        Err(_) => Dim::Dynamic(Some(text.into())),
    }
}

/// An input whose rows lie on axis 0.
fn input(name: &str, dims: &[&str]) -> TensorSpec {
    let dims = dims.iter().map(|text| dim(text)).collect();
    let (name, batch_axis) = (name.into(), Some(0));
    TensorSpec { name, dtype: DataType::Fp32, dims, batch_axis, reshape: None, ragged: None }
}

fn spec(inputs: Vec<TensorSpec>) -> ModelSpec {
    ModelSpec { inputs, outputs: Vec::new() }
}

fn example_of(inner: i64) -> Examples<'static> {
    examples(&NONE_GIVEN, inner)
}

fn examples(given: &BTreeMap<String, Vec<i64>>, inner: i64) -> Examples<'_> {
    Examples { inner, ..Examples::settled(given, &NO_VALUES) }
}

struct NoStop;

impl Stop for NoStop {
    fn stop(&self) {}
}

/// Runs what it accepts and remembers rows and width of everything that it was asked for.
struct Picky {
    accepts: fn(usize, usize) -> bool,
    asked: Vec<(usize, usize)>,
}

impl Executor for Picky {
    fn stopper(&mut self) -> Arc<dyn Stop> {
        Arc::new(NoStop)
    }

    fn run(&mut self, inputs: &[Joined<'_>]) -> Result<Run, ExecuteError> {
        let size = |axis| inputs[0].shape().dim(axis).unwrap();
        let asked = (size(0), size(1));
        self.asked.push(asked);
        if (self.accepts)(asked.0, asked.1) {
            return Ok(Run { outputs: Vec::new(), joined_at: Instant::now() });
        }
        Err(ExecuteError::Input("not of that size".to_owned()))
    }
}

fn measure(budget: Duration, accepts: fn(usize, usize) -> bool) -> (Measured, Picky) {
    let spec = spec(vec![input("x", &["-1", "-1"])]);
    let own = Length::of(&spec, example_of(8));
    let lengths = [own.near(&spec, 4).unwrap(), own];
    let grid = Grid { spec: &spec, lengths: &lengths, rows: &[1, 2, 3], budget };
    let mut picky = Picky { accepts, asked: Vec::new() };
    let measured = grid.measure(&mut picky, &mut |_| {});
    (measured, picky)
}

#[test]
fn sizes_rise_by_a_half_and_a_third_up_to_the_most() {
    assert_eq!(sizes(64), [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64]);
    assert_eq!(sizes(20), [1, 2, 3, 4, 6, 8, 12, 16, 20]);
    assert_eq!((sizes(1), sizes(0)), (vec![1], vec![1]));
}

#[test]
fn a_length_follows_the_symbol_of_the_last_free_dimension() {
    let tokens = |name| input(name, &["batch", "sequence"]);
    let spec = spec(vec![tokens("ids"), tokens("mask"), input("k", &["batch", "side"])]);
    let own = Length::of(&spec, example_of(32));
    assert_eq!(own.length, 32, "the largest input's");
    let double = own.near(&spec, 64).unwrap();
    assert_eq!((&double.shapes["ids"], &double.shapes["mask"]), (&vec![1, 64], &vec![1, 64]));
    assert_eq!((double.length, &double.shapes["k"]), (64, &vec![1, 32]));
    assert_eq!(own.near(&spec, 16).unwrap(), own, "another input keeps it");
    let squares =
        self::spec(vec![tokens("ids"), input("bias", &["batch", "sequence", "sequence"])]);
    let half = Length::of(&squares, example_of(32)).near(&squares, 512).unwrap();
    assert_eq!((half.length, &half.shapes["ids"]), (23 * 23, &vec![1, 23]));
}

#[test]
fn padded_inputs_have_the_length_that_is_asked_for() {
    let mut padded = input("ids", &["batch", "-1"]);
    let fill = Fill::parse(DataType::Fp32, "0").unwrap();
    padded.ragged = Some(Ragged::Padded(Pad { axis: 1, fill }));
    let spec = spec(vec![padded, input("other", &["batch", "-1"])]);
    let own = Length::of(&spec, example_of(32));
    assert_eq!(own.length, 32);
    let other = own.near(&spec, 100).unwrap();
    assert_eq!((other.length, &other.shapes["ids"]), (100, &vec![1, 100]));
    assert_eq!(other.shapes["other"], [1, 32], "it is not padded");
    let tensors = example(&spec, other.examples(), 0);
    assert_eq!(length_of(&tensors, &spec), 100, "and so it is made up");
}

#[test]
fn nameless_dimensions_of_one_size_change_together() {
    let spec = spec(vec![input("x", &["-1", "3", "-1", "-1"])]);
    let square = Length::of(&spec, example_of(32));
    assert_eq!(square.near(&spec, 32 * 32 * 4).unwrap().shapes["x"], [1, 3, 64, 64]);
    let given = BTreeMap::from([("x".to_owned(), vec![1, 3, 48, 192])]);
    let line = Length::of(&spec, examples(&given, 8));
    let around = Length::around(&spec, examples(&given, 8));
    let lengths: Vec<usize> = around.iter().map(|each| each.length).collect();
    assert_eq!(lengths, [48 * 48, 48 * 96, 48 * 192, 48 * 384]);
    assert_eq!(line.near(&spec, 48 * 384).unwrap().shapes["x"], [1, 3, 48, 384]);
    let odd = line.near(&spec, 100).unwrap();
    assert_eq!((&odd.shapes["x"], odd.length), (&vec![1, 3, 48, 2], 96), "the nearest there is");
    let huge = line.near(&spec, 1 << 40).unwrap();
    assert!(example(&spec, huge.examples(), 0).is_empty(), "it is not made up, and cannot run");
}

#[test]
fn fixed_inputs_have_one_length() {
    let spec = spec(vec![input("x", &["-1", "5"])]);
    assert_eq!(Length::of(&spec, example_of(8)).length, 1);
    assert_eq!(Length::of(&spec, example_of(8)).near(&spec, 8), None);
    assert_eq!(Length::around(&spec, example_of(8)).len(), 1);
}

#[test]
fn the_time_of_a_size_is_its_lower_quartile() {
    let time = |times: &[u64]| {
        let times = times.iter().map(|micros| Duration::from_micros(*micros)).collect();
        Cell { length: 1, rows: 1, times }.time().as_micros()
    };
    assert_eq!(time(&[]), 0);
    assert_eq!(time(&[7]), 7);
    assert_eq!(time(&[9, 8, 7, 6, 5]), 6, "no single lucky run makes it");
    assert_eq!(time(&[100, 900, 101, 800, 102, 700, 103, 600]), 101);
}

#[test]
fn every_size_runs_once_before_any_runs_again() {
    let (measured, picky) = measure(Duration::from_hours(1), |_, _| true);
    let first = [(1, 4), (1, 8), (2, 4), (2, 8), (3, 4), (3, 8)];
    assert_eq!(picky.asked[..6], first);
    assert!(measured.left_out.is_empty());
    let sizes: Vec<_> = measured.cells.iter().map(|cell| (cell.rows, cell.length)).collect();
    assert_eq!(sizes, first);
    let enough = measured.cells.iter().all(|cell| cell.runs() >= MOST_RUNS);
    assert!(enough, "more runs make it no surer");
}

#[test]
fn what_fails_is_left_out_with_all_that_is_larger() {
    let (measured, picky) = measure(Duration::from_hours(1), |rows, width| rows < 2 || width < 8);
    let reason = "not of that size".to_owned();
    assert_eq!(measured.left_out, [LeftOut { length: 8, rows: 2, reason }]);
    assert!(!picky.asked.contains(&(3, 8)), "not tried");
    assert_eq!(measured.cells.len(), 4);
}

#[test]
fn what_fails_later_is_left_out_too() {
    static RUNS: AtomicUsize = AtomicUsize::new(0);
    let (measured, _) = measure(Duration::from_hours(1), |rows, width| {
        // Ordering: only counts.
        (rows, width) != (2, 4) || RUNS.fetch_add(1, Ordering::Relaxed) < 50
    });
    let sizes: Vec<_> = measured.cells.iter().map(|cell| (cell.rows, cell.length)).collect();
    assert_eq!(sizes, [(1, 4), (1, 8), (2, 8), (3, 8)]);
    assert_eq!((measured.left_out.len(), measured.left_out[0].rows), (1, 2));
}

#[test]
fn without_time_only_the_first_size_runs() {
    let (measured, picky) = measure(Duration::ZERO, |_, _| true);
    assert_eq!((picky.asked.len(), measured.cells.len()), (1, 1));
    let sizes: Vec<_> = measured.left_out.iter().map(|out| (out.rows, out.length)).collect();
    assert_eq!(sizes, [(1, 8), (2, 4)]);
    assert!(measured.left_out[0].reason.contains("used up"));
}
