//! Whether rows are independent, on executors that are not; what is tried and measured at first.

use std::sync::{Arc, Mutex};

use super::*;
use crate::job::Stop;
use crate::tensor::rows::Joined;
use crate::worker::Run;

fn tensor_spec(name: &str, dtype: DataType, dims: &[i64], batch_axis: Option<usize>) -> TensorSpec {
    let dim = |size: &i64| if *size < 0 { Dim::Dynamic(None) } else { Dim::Fixed(*size) };
    TensorSpec {
        name: name.into(),
        dtype,
        dims: dims.iter().map(dim).collect(),
        batch_axis,
        reshape: None,
        ragged: None,
    }
}

/// `x FP32 [rows, -1]` to `y` of the same shape.
fn spec() -> ModelSpec {
    let tensor = |name| tensor_spec(name, DataType::Fp32, &[-1, -1], Some(0));
    ModelSpec { inputs: vec![tensor("x")], outputs: vec![tensor("y")] }
}

/// No shapes in the model's settings.
static NONE_GIVEN: BTreeMap<String, Vec<i64>> = BTreeMap::new();
/// Nor values.
static NO_VALUES: BTreeMap<String, String> = BTreeMap::new();

/// Shapes that are made up, 8 wide.
fn examples() -> Examples<'static> {
    Examples::settled(&NONE_GIVEN, &NO_VALUES)
}

/// An input as the scripts see it: its rows, as numbers.
type Rows = Vec<Vec<f32>>;

/// A model as a function of the rows of its input, and the shapes that it saw.
struct Scripted<F> {
    model: F,
    seen: Vec<Vec<i64>>,
}

struct NoStop;

impl Stop for NoStop {
    fn stop(&self) {}
}

impl<F: FnMut(Rows) -> Result<Rows, String> + Send> Executor for Scripted<F> {
    fn stopper(&mut self) -> Arc<dyn Stop> {
        Arc::new(NoStop)
    }

    fn run(&mut self, inputs: &[Joined<'_>]) -> Result<Run, ExecuteError> {
        let input = &inputs[0];
        self.seen.push(input.shape().dims().to_vec());
        let mut bytes = vec![0; input.byte_len()];
        input.copy_to(&mut bytes);
        let numbers: Vec<f32> = bytes
            .chunks_exact(4)
            .map(|chunk| f32::from_le_bytes(chunk.try_into().unwrap()))
            .collect();
        let width = input.shape().dim(1).unwrap();
        let rows = numbers.chunks_exact(width).map(<[f32]>::to_vec).collect();
        let output = (self.model)(rows).map_err(ExecuteError::Input)?;
        let dims = [output.len(), width].map(|dim| i64::try_from(dim).unwrap()).to_vec();
        let bytes: Vec<u8> =
            output.iter().flatten().flat_map(|value| value.to_le_bytes()).collect();
        let shape = Shape::new(dims).unwrap();
        let output = Tensor::dense(DataType::Fp32, shape, bytes.into()).unwrap();
        Ok(Run { outputs: vec![output], joined_at: Instant::now() })
    }
}

/// Runs nothing and keeps the shapes of the first input.
struct Shapes(Vec<Vec<i64>>);

impl Executor for Shapes {
    fn stopper(&mut self) -> Arc<dyn Stop> {
        Arc::new(NoStop)
    }

    fn run(&mut self, inputs: &[Joined<'_>]) -> Result<Run, ExecuteError> {
        self.0.push(inputs[0].shape().dims().to_vec());
        Err(ExecuteError::Input("never".to_owned()))
    }
}

fn scripted<F: FnMut(Rows) -> Result<Rows, String>>(model: F) -> Scripted<F> {
    Scripted { model, seen: Vec::new() }
}

fn independence(model: impl FnMut(Rows) -> Result<Rows, String> + Send) -> Independence {
    check_independence(&mut scripted(model), &spec(), examples())
}

fn refusal(model: impl FnMut(Rows) -> Result<Rows, String> + Send) -> String {
    match independence(model) {
        Independence::Refuted(reason) => reason,
        other => panic!("{other:?}"),
    }
}

#[test]
fn independent_rows_are_shown() {
    assert_eq!(independence(Ok), Independence::Shown);
    let doubled = |rows: Rows| {
        Ok(rows.into_iter().map(|row| row.iter().map(|value| value * 2.0).collect()).collect())
    };
    assert_eq!(independence(doubled), Independence::Shown);
}

#[test]
fn rounding_is_no_influence() {
    let rounded = |rows: Rows| {
        let off = if rows.len() > 1 { 1.0 + 1e-4 } else { 1.0 };
        Ok(rows.iter().map(|row| row.iter().map(|value| value * off).collect()).collect())
    };
    assert_eq!(independence(rounded), Independence::Shown);
    let nans = |rows: Rows| Ok(rows.iter().map(|row| vec![f32::NAN; row.len()]).collect());
    assert_eq!(independence(nans), Independence::Shown);
}

#[test]
fn rows_that_mix_are_refuted() {
    let mean = |rows: Rows| {
        let count = f32::from(u8::try_from(rows.len()).unwrap());
        let mean = |place: usize| rows.iter().map(|row| row[place]).sum::<f32>() / count;
        let centred = |row: &Vec<f32>| {
            row.iter().enumerate().map(|(place, value)| value - mean(place)).collect()
        };
        Ok(rows.iter().map(centred).collect())
    };
    assert_eq!(refusal(mean), "`y` of a row differs when another row runs beside it");
    let swapped = |mut rows: Rows| {
        rows.reverse();
        Ok(rows)
    };
    assert_eq!(refusal(swapped), "`y` of a row differs when another row runs beside it");
    let second_only = |mut rows: Rows| {
        rows.iter_mut().skip(1).for_each(|row| row[0] += 1.0);
        Ok(rows)
    };
    assert_eq!(refusal(second_only), "`y` of a row differs when another row runs beside it");
}

#[test]
fn a_small_influence_on_small_values_is_refuted() {
    let scaled = |scale: f32| {
        move |rows: Rows| {
            let others: f32 = rows.iter().flatten().sum();
            let mixed = |row: &Vec<f32>| row.iter().map(|v| (v + others) * scale).collect();
            Ok(rows.iter().map(mixed).collect())
        }
    };
    for scale in [1.0, 1e-3, 1e-20] {
        assert_eq!(refusal(scaled(scale)), "`y` of a row differs when another row runs beside it");
    }
    // A zero that rounding made of a larger sum is none.
    let rounded = |mut rows: Rows| {
        let noise = if rows.len() > 1 { 1e-6 } else { 0.0 };
        for row in &mut rows {
            row[0] = noise;
        }
        Ok(rows)
    };
    assert_eq!(independence(rounded), Independence::Shown);
}

#[test]
fn an_infinity_is_close_to_itself_only() {
    let overflows = |mut rows: Rows| {
        let value = if rows.len() > 1 { f32::INFINITY } else { f32::MAX };
        for row in &mut rows {
            row[0] = value;
        }
        Ok(rows)
    };
    assert_eq!(refusal(overflows), "`y` of a row differs when another row runs beside it");
    let infinite = |mut rows: Rows| {
        for row in &mut rows {
            row[0] = f32::NEG_INFINITY;
        }
        Ok(rows)
    };
    assert_eq!(independence(infinite), Independence::Shown);
}

#[test]
fn nothing_larger_than_memory_is_made_up() {
    let mut spec = spec();
    spec.inputs[0].dims = vec![Dim::Dynamic(None); 7];
    // Eight to the sixth, and no more.
    let mut executor = Shapes(Vec::new());
    let error = run_once(&mut executor, &spec, examples()).unwrap_err();
    assert_eq!(error.to_string(), "inputs of that size are not made up");
    assert_eq!(executor.0, [[1, 8, 8, 8, 8, 8, 8]]);
    for dtype in DataType::ALL {
        let shape = Shape::new(vec![1 << 20, 1 << 20]).unwrap();
        assert_eq!(made_up(dtype, shape, 1), None, "{dtype}");
    }
}

#[test]
fn outputs_with_other_rows_are_refuted() {
    let summed = |rows: Rows| Ok(rows[..1].to_vec());
    assert_eq!(refusal(summed), "`y`: 1 rows along axis 0 of [1, 8], expected 2");
    let doubled = |rows: Rows| Ok([rows.clone(), rows].concat());
    assert_eq!(refusal(doubled), "`y`: 4 rows along axis 0 of [4, 8], expected 2");
    let always_two = |rows: Rows| Ok(vec![rows[0].clone(), rows[rows.len() - 1].clone()]);
    assert_eq!(refusal(always_two), "`y` of a row differs when another row runs beside it");
}

#[test]
fn rows_that_run_alone_only_are_refuted_and_rows_that_never_run_are_unknown() {
    let alone = |rows: Rows| if rows.len() == 1 { Ok(rows) } else { Err("too many".to_owned()) };
    assert_eq!(refusal(alone), "two rows alone run, together not: too many");
    let never = |_: Rows| Err("no such word".to_owned());
    assert_eq!(independence(never), Independence::Unknown("no such word".to_owned()));
}

#[test]
fn the_two_rows_differ_and_run_alone_then_together() {
    let seen = Mutex::new(Vec::new());
    let mut executor = scripted(|rows: Rows| {
        seen.lock().unwrap().push(rows.clone());
        Ok(rows)
    });
    assert_eq!(check_independence(&mut executor, &spec(), examples()), Independence::Shown);
    assert_eq!(executor.seen, [[1, 8], [1, 8], [2, 8]]);
    let seen = seen.into_inner().unwrap();
    assert_ne!(seen[0], seen[1], "equal rows would show nothing");
    assert_eq!(seen[2], [&seen[0][..], &seen[1]].concat());
}

#[test]
fn the_two_rows_differ_in_every_input_of_every_datatype() {
    for dtype in DataType::ALL {
        for width in [1, 8] {
            let rows = |name| tensor_spec(name, dtype, &[-1, width], Some(0));
            let inputs = vec![rows("x"), tensor_spec("k", dtype, &[8], None), rows("z")];
            let spec = ModelSpec { inputs, outputs: Vec::new() };
            let [one, other] = two_rows(&spec, examples());
            assert_eq!((one.len(), other.len()), (3, 3), "{dtype} {width}");
            assert_ne!(one[0], other[0], "{dtype} {width}: equal rows would show nothing");
            assert_eq!(one[1], other[1], "{dtype} {width}: rows share it");
            assert_ne!(one[2], other[2], "{dtype} {width}: equal rows would show nothing");
        }
    }
}

#[test]
fn a_value_of_the_settings_is_every_element_and_the_other_inputs_differ_all_the_same() {
    let rows = |name| tensor_spec(name, DataType::Int64, &[-1, 1], Some(0));
    let spec = ModelSpec { inputs: vec![rows("mask"), rows("x")], outputs: Vec::new() };
    let values = BTreeMap::from([("mask".to_owned(), "1".to_owned())]);
    let [one, other] = two_rows(&spec, Examples::settled(&NONE_GIVEN, &values));
    assert_eq!((&one[0], one[0].dense_bytes().unwrap()[0]), (&other[0], 1));
    assert_ne!(one[1], other[1], "equal rows would show nothing");
    let wrong = BTreeMap::from(
        [("mask", "1.5"), ("words", "1")].map(|(name, text)| (name.to_owned(), text.to_owned())),
    );
    assert_eq!(
        wrong_values(&spec, &wrong),
        [
            "inputs.mask.example_value: expected a value of INT64, got \"1.5\"",
            "inputs.words.example_value: the model has no such input",
        ]
    );
    assert!(wrong_values(&spec, &values).is_empty());
}

#[test]
fn rows_that_cannot_differ_do_not_end_the_search_for_ever() {
    let empty = tensor_spec("x", DataType::Int64, &[-1, 0], Some(0));
    let spec = ModelSpec { inputs: vec![empty], outputs: Vec::new() };
    let [one, other] = two_rows(&spec, examples());
    assert_eq!(one, other);
}

#[test]
fn the_first_inner_size_that_runs_is_kept() {
    let first = |executor: &mut dyn Executor, spec: &ModelSpec| {
        run_once(executor, spec, examples()).map(|examples| examples.inner)
    };
    let picky = |rows: Rows| if rows[0].len() == 224 { Ok(rows) } else { Err("no".to_owned()) };
    let mut executor = scripted(picky);
    assert_eq!(first(&mut executor, &spec()), Ok(224));
    assert_eq!(executor.seen, [[1, 8], [1, 32], [1, 224]]);
    let mut executor = scripted(|_| Err("never".to_owned()));
    let error = ExecuteError::Input("never".to_owned());
    assert_eq!(first(&mut executor, &spec()), Err(error));
    let mut fixed = spec();
    fixed.inputs[0].dims[1] = Dim::Fixed(5);
    let mut executor = scripted(|_| Err("never".to_owned()));
    assert!(first(&mut executor, &fixed).is_err());
    assert_eq!(executor.seen, [[1, 5]], "there is nothing else to try");
}

#[test]
fn shapes_of_the_settings_come_before_made_up_ones() {
    let given = BTreeMap::from([("x".to_owned(), vec![-1, 5]), ("z".to_owned(), vec![3])]);
    let mut executor = scripted(Ok);
    let given = Examples::settled(&given, &NO_VALUES);
    let examples = run_once(&mut executor, &spec(), given).unwrap();
    assert_eq!(check_independence(&mut executor, &spec(), examples), Independence::Shown);
    assert_eq!(executor.seen, [[1, 5], [1, 5], [1, 5], [2, 5]]);
}

#[test]
fn sizes_double_up_to_the_limit_the_budget_or_the_first_failure() {
    let hour = Duration::from_hours(1);
    let sizes = |max_rows, budget, model: fn(Rows) -> Result<Rows, String>| {
        let curve = measure(&mut scripted(model), &spec(), examples(), max_rows, budget);
        curve.into_iter().map(|(rows, _)| rows).collect::<Vec<_>>()
    };
    assert_eq!(sizes(8, hour, Ok), [1, 2, 4, 8]);
    assert_eq!(sizes(9, hour, Ok), [1, 2, 4, 8]);
    assert_eq!(sizes(1, hour, Ok), [1]);
    assert_eq!(sizes(64, Duration::ZERO, Ok), [1]);
    let four = |rows: Rows| if rows.len() < 4 { Ok(rows) } else { Err("no".to_owned()) };
    assert_eq!(sizes(64, hour, four), [1, 2]);
}

#[test]
fn sizes_between_the_same_measured_ones_agree() {
    assert!(agrees(64, 61) && agrees(33, 64) && agrees(1, 1));
    assert!(!agrees(64, 65) && !agrees(1, 2) && !agrees(2, 3));
}
