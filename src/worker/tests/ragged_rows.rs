//! Riders of different length in one run: padded for the model, in their own length for callers.

use super::scripted::WRONG_INPUT;
use super::*;
use crate::model::ragged::Ragged;
use crate::tensor::Fill;
use crate::tensor::rows::Pad;

/// The model of the other tests, padded along its width.
fn padded(value: i64) -> ModelSpec {
    let mut spec = spec();
    let fill = Fill::parse(DataType::Int64, &value.to_string()).unwrap();
    spec.inputs[0].ragged = Some(Ragged::Padded(Pad { axis: 1, fill }));
    spec.outputs[0].ragged = Some(Ragged::Cut { axis: 1 });
    spec
}

fn held(spec: ModelSpec) -> (Bench, Hold) {
    let (script, hold) = Script::held();
    (Bench::of(spec, script, 1, 16), hold)
}

#[tokio::test]
async fn different_lengths_share_a_run_and_come_back_in_their_own() {
    let (bench, hold) = held(padded(0));
    let plug = bench.plug(&hold).await;
    let requests: [(&[i64], usize); 4] =
        [(&[1, 2, 3], 3), (&[4, 5, 6, 7, 8], 5), (&[9], 1), (&[10, 11, 12, 13], 2)];
    let tickets = requests.map(|(values, width)| bench.submit_wide(values, width));
    drop(hold);
    numbers(plug).await;
    for (ticket, (values, width)) in tickets.into_iter().zip(requests) {
        let response = answer(ticket).await.unwrap();
        let shape = response.outputs[0].1.shape();
        assert_eq!((shape.dim(0), shape.dim(1)), (Some(values.len() / width), Some(width)));
        assert_eq!(response.outputs[0].1, tensor(values, shape.clone()));
        assert_eq!(response.batch_rows, 5);
    }
    assert_eq!((bench.script.runs(), bench.script.widths()), (vec![1, 5], vec![1, 5]));
    // One for the plug; five rows of five, of which thirteen values came from callers.
    assert_eq!(bench.counter("batch_elements", ""), 26);
    assert_eq!(bench.counter("padded_elements", ""), 12);
    bench.finish().await;
}

#[tokio::test]
async fn one_length_is_neither_padded_nor_cut() {
    // The padding would fail the run, and the output has another width than the input.
    let (bench, hold) = held(padded(WRONG_INPUT));
    bench.script.adds_width.store(true, Ordering::SeqCst);
    let plug = bench.plug(&hold).await;
    let tickets = [[1, 2], [3, 4]].map(|values| bench.submit_wide(&values, 2));
    drop(hold);
    assert_eq!(numbers(plug).await, [0], "alone");
    for ticket in tickets {
        assert_eq!(numbers(ticket).await, [0; 3], "as the model gave it");
    }
    assert_eq!(bench.script.runs(), [1, 2]);
    assert_eq!(bench.counter("batch_elements", ""), 5);
    assert_eq!(bench.counter("padded_elements", ""), 0);
    bench.finish().await;
}

#[tokio::test]
async fn a_guilty_request_among_lengths_gets_its_error_alone() {
    let (bench, hold) = held(padded(0));
    let plug = bench.plug(&hold).await;
    let requests: [&[i64]; 4] = [&[1], &[2, 2], &[WRONG_INPUT, 3, 3], &[4, 4, 4, 4]];
    let tickets = requests.map(|values| bench.submit_wide(values, values.len()));
    drop(hold);
    numbers(plug).await;
    for (ticket, values) in tickets.into_iter().zip(requests) {
        if values[0] == WRONG_INPUT {
            assert!(matches!(answer(ticket).await, Err(PredictError::Invalid(_))));
        } else {
            assert_eq!(numbers(ticket).await, values);
        }
    }
    assert_eq!(bench.script.runs(), [1, 4, 2, 2, 1, 1]);
    assert_eq!(bench.script.widths(), [1, 4, 2, 4, 3, 4], "halves are as long as they must be");
    bench.finish().await;
}

#[tokio::test]
async fn outputs_without_the_length_that_went_in_end_batching() {
    let (bench, hold) = held(padded(0));
    bench.script.adds_width.store(true, Ordering::SeqCst);
    let plug = bench.plug(&hold).await;
    let requests: [&[i64]; 2] = [&[1], &[2, 2]];
    let tickets = requests.map(|values| bench.submit_wide(values, values.len()));
    drop(hold);
    numbers(plug).await;
    for (ticket, values) in tickets.into_iter().zip(requests) {
        assert_eq!(numbers(ticket).await, values, "never cut where it does not fit");
    }
    assert_eq!(bench.script.runs(), [1, 2, 1, 1]);
    assert_eq!(bench.batcher.policy().max_rows, 1);
    bench.finish().await;
}

#[tokio::test]
async fn a_very_long_request_does_not_make_all_others_as_long() {
    const LONG: usize = 1 << 18;
    let (bench, hold) = held(padded(0));
    let plug = bench.plug(&hold).await;
    let shorts = [[1], [2], [3], [4], [5], [6]].map(|values| bench.submit(&values));
    let long = bench.submit_wide(&vec![7; LONG], LONG);
    drop(hold);
    numbers(plug).await;
    for (ticket, number) in shorts.into_iter().zip(1..) {
        assert_eq!(numbers(ticket).await, [number]);
    }
    assert_eq!(numbers(long).await, vec![7; LONG]);
    // Four times the memory of the long one, and half of its own for free.
    assert_eq!((bench.script.runs(), bench.script.widths()), (vec![1, 4, 3], vec![1, LONG, 1]));
    bench.finish().await;
}

#[tokio::test]
async fn each_of_many_riders_gets_exactly_its_own_length() {
    let (bench, hold) = held(padded(0));
    let plug = bench.plug(&hold).await;
    let mut state = 1_i64;
    let mut below = |limit: i64| {
        // The multiplier of MINSTD: any generator will do.
        state = state * 48_271 % 2_147_483_647;
        state / 1000 % limit
    };
    let mut request = |request: i64| {
        let (rows, width) = (1 + below(3), 1 + below(12));
        let values: Vec<i64> = (request * 1000..request * 1000 + rows * width).collect();
        (values, usize::try_from(width).unwrap())
    };
    let requests: Vec<_> = (1..=100).map(&mut request).collect();
    let tickets: Vec<_> =
        requests.iter().map(|(values, width)| bench.submit_wide(values, *width)).collect();
    drop(hold);
    numbers(plug).await;
    for (ticket, (values, _)) in tickets.into_iter().zip(&requests) {
        assert_eq!(numbers(ticket).await, *values);
    }
    let rows: usize = requests.iter().map(|(values, width)| values.len() / width).sum();
    assert_eq!(bench.script.runs().iter().sum::<usize>(), rows + 1);
    assert!(bench.script.runs().len() < 25, "{:?}", bench.script.runs());
    bench.finish().await;
}
