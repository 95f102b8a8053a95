//! Single calls of `ModelInfer`: the type of a file, and a request that the server refuses.

use std::fs;
use std::path::Path;
use std::time::Duration;

use tonic::{Code, Request};

use crate::pb::ModelInferRequest;
use crate::{Client, Error, code_name, within};

const LIMIT: Duration = Duration::from_secs(5);
/// Bytes that count at each end of a file.
const BLOCK: usize = 4096;
/// Values of the row that come from the start, and as many from the end.
const SIDE: usize = 1024;
/// Stands for no byte.
const PADDING: i32 = 256;

pub async fn classify(client: &mut Client, models: &Path, file: &Path) -> Result<(), Error> {
    let labels = fs::read_to_string(models.join("magika/labels.txt"))
        .map_err(|error| format!("the labels of magika: {error}"))?;
    let bytes = fs::read(file).map_err(|error| format!("{}: {error}", file.display()))?;
    let row = row(&bytes).into_iter().flat_map(i32::to_le_bytes).collect();

    let request = ModelInferRequest::to("magika").input("bytes", "INT32", &[1, 2048], row);
    let mut request = Request::new(request);
    request.set_timeout(LIMIT);
    let answer = within(LIMIT, client.model_infer(request)).await?.into_inner();

    let scores = answer.floats("target_label")?;
    // Not `max_by`, which takes the last of equals.
    let best =
        labels.lines().zip(scores).reduce(|best, next| if next.1 > best.1 { next } else { best });
    let (label, score) = best.ok_or("the answer has no scores")?;
    println!("classify: {label} {score:.4}");
    Ok(())
}

/// The start of a file without its leading white space, and the end without its trailing one.
fn row(bytes: &[u8]) -> Vec<i32> {
    // Not `is_ascii_whitespace`, which lacks the vertical tab.
    let is_text = |byte: &u8| !matches!(byte, b' ' | b'\t'..=b'\r');
    let head = &bytes[..bytes.len().min(BLOCK)];
    let head = &head[head.iter().position(is_text).unwrap_or(head.len())..];
    let tail = &bytes[bytes.len().saturating_sub(BLOCK)..];
    let tail = &tail[..tail.iter().rposition(is_text).map_or(0, |last| last + 1)];

    let mut row = vec![PADDING; 2 * SIDE];
    let (first, last) = row.split_at_mut(SIDE);
    for (value, byte) in first.iter_mut().zip(head) {
        *value = i32::from(*byte);
    }
    for (value, byte) in last.iter_mut().rev().zip(tail.iter().rev()) {
        *value = i32::from(*byte);
    }
    row
}

/// The shape should be `[1, 2048]`.
pub async fn error(client: &mut Client) -> Result<(), Error> {
    let row = [1_i32, 2, 3].into_iter().flat_map(i32::to_le_bytes).collect();
    let request = ModelInferRequest::to("magika").input("bytes", "INT32", &[1, 3], row);
    match client.model_infer(request).await {
        Ok(_) => Err("the server took a row of three values".into()),
        Err(status) if status.code() == Code::InvalidArgument => {
            println!("error: {}: {}", code_name(status.code()), status.message());
            Ok(())
        }
        Err(status) => Err(status.into()),
    }
}
