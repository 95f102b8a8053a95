//! Any model, with values from the command line.
//!
//! Types and shapes come from the model's metadata, so a value is all that must be given. Without
//! values the model's signature is shown, and a line to try.

use super::client::{Client, WireTensor, visible};
use super::{DEFAULT_ADDRESS, Target, refused, values, wrong};
use crate::cli::Outcome;
use crate::pb::ModelMetadataResponse;
use crate::pb::model_metadata_response::TensorMetadata;
use crate::tensor::{DataType, Shape};

/// Most values of one input: a single value must not fill the memory.
const MAX_ELEMENTS: usize = 1 << 26;
/// Most values of one output that are shown.
const SHOWN_VALUES: usize = 1024;

/// Asks the model of `target` with `inputs`, each `NAME=V1,V2,…` or `NAME[D1,D2]=V1,V2,…`.
pub(super) async fn ask(
    mut client: Client,
    target: &Target,
    inputs: &[String],
) -> Result<String, Outcome> {
    let metadata = client.metadata().await?;
    if inputs.is_empty() && !metadata.inputs.is_empty() {
        return Ok(signature(&metadata, target));
    }
    let tensors: Result<Vec<_>, String> =
        inputs.iter().map(|text| tensor(text, &metadata.inputs)).collect();
    let outputs = client.infer(tensors.map_err(wrong)?).await?;
    let shown: Result<Vec<String>, Outcome> = outputs.into_iter().map(show).collect();
    Ok(shown?.join("\n"))
}

/// The tensor that one `--input` describes.
fn tensor(text: &str, declared: &[TensorMetadata]) -> Result<WireTensor, String> {
    let known = || {
        let names: Vec<String> = declared.iter().map(|each| format!("`{}`", each.name)).collect();
        format!("the model has {}", names.join(", "))
    };
    // A name may have an equals sign or brackets in it; whole names come first.
    let splits = text.match_indices('=').map(|(at, _)| (&text[..at], &text[at + 1..]));
    let find = |name: &str| declared.iter().find(|each| each.name == name);
    let plain = |(name, values)| find(name).map(|input| (input, None, values));
    let shaped = |(name, values): (&str, _)| {
        let (name, dims) = name.strip_suffix(']')?.rsplit_once('[')?;
        find(name).map(|input| (input, Some(dims.to_owned()), values))
    };
    let found = splits.clone().find_map(plain).or_else(|| splits.clone().find_map(shaped));
    let Some((input, dims, values)) = found else {
        let name = splits.map(|(name, _)| name).next();
        return Err(match name {
            None => format!("--input is {text:?}, expected NAME=VALUE,VALUE,…"),
            Some(name) => format!("unknown input `{name}`; {}", known()),
        });
    };
    build(input, dims.as_deref(), values).map_err(|why| format!("input `{}`: {why}", input.name))
}

fn build(input: &TensorMetadata, dims: Option<&str>, values: &str) -> Result<WireTensor, String> {
    let Some(dtype) = DataType::from_wire_name(&input.datatype) else {
        return Err(format!("has the datatype {:?}, which is not known here", input.datatype));
    };
    let texts: Vec<&str> = match (values, dtype) {
        ("", dtype) if dtype != DataType::Bytes => Vec::new(),
        _ => values.split(',').collect(),
    };
    let shape = match dims {
        Some(dims) => parse_dims(dims)?,
        None => infer_dims(&input.shape, texts.len())?,
    };
    let shape = Shape::new(shape).map_err(|error| error.to_string())?;
    let elements = shape.elements();
    if elements > MAX_ELEMENTS {
        return Err(format!("{shape} has {elements} values, at most {MAX_ELEMENTS} are sent"));
    }
    let mut raw = Vec::new();
    for text in &texts {
        values::push(dtype, text, &mut raw)?;
    }
    if texts.len() == 1 {
        raw = raw.repeat(elements);
    } else if texts.len() != elements {
        return Err(format!("{shape} takes {elements} values, got {}", texts.len()));
    }
    let name = input.name.clone();
    Ok(WireTensor { name, dtype, shape: shape.into_dims(), raw: raw.into() })
}

fn parse_dims(text: &str) -> Result<Vec<i64>, String> {
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let dims: Result<Vec<i64>, _> = text.split(',').map(|dim| dim.trim().parse()).collect();
    dims.map_err(|_| format!("[{text}] is no shape, expected whole numbers and commas"))
}

/// Puts numbers where the declared shape has -1: what `count` values leave for the only one, or 1
/// for each when there is a single value.
fn infer_dims(declared: &[i64], count: usize) -> Result<Vec<i64>, String> {
    let dynamic = declared.iter().filter(|dim| **dim < 0).count();
    let resolved = |size: i64| declared.iter().map(move |dim| if *dim < 0 { size } else { *dim });
    if dynamic == 0 || count == 1 {
        return Ok(resolved(1).collect());
    }
    if dynamic > 1 {
        return Err(format!(
            "shape {declared:?} has {dynamic} open dimensions; say them: NAME[2,3]=…"
        ));
    }
    let fixed = Shape::new(resolved(1).collect()).map_err(|error| error.to_string())?.elements();
    if fixed == 0 || !count.is_multiple_of(fixed) {
        return Err(format!("shape {declared:?} takes a multiple of {fixed} values, got {count}"));
    }
    Ok(resolved(i64::try_from(count / fixed).unwrap_or(i64::MAX)).collect())
}

/// What the model takes and gives, and a line to try.
fn signature(metadata: &ModelMetadataResponse, target: &Target) -> String {
    let all = || metadata.inputs.iter().chain(&metadata.outputs);
    let width = all().map(|each| each.name.chars().count()).max().unwrap_or(0);
    let mut lines = vec![format!("{} {}", metadata.name, metadata.versions.join(", "))];
    for (kind, tensors) in [("input", &metadata.inputs), ("output", &metadata.outputs)] {
        lines.extend(tensors.iter().map(|TensorMetadata { name, datatype, shape }| {
            format!("  {kind:<6}  {name:<width$}  {datatype:<6}  {shape:?}")
        }));
    }
    let mut words = vec![format!("  onnxd infer {}", target.model)];
    if target.address != DEFAULT_ADDRESS {
        words.push(format!("--addr {}", target.address));
    }
    match target.model.as_str() {
        "magika" => words.push("--file README.md".to_owned()),
        "silero-vad" => words.push("--file models/silero-vad/sample.wav".to_owned()),
        _ => words.extend(metadata.inputs.iter().map(|input| {
            let value = DataType::from_wire_name(&input.datatype).map_or("1", values::example);
            format!("--input {}", shell_word(&format!("{}={value}", input.name)))
        })),
    }
    lines.extend([String::new(), "for instance:".to_owned(), words.join(" ")]);
    visible(&lines.join("\n"))
}

/// Quoted where a shell would read more into it.
fn shell_word(word: &str) -> String {
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "_-./:=,".contains(letter);
    if word.chars().all(is_plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// An output: name, type, shape, then the values, one line for each of the last dimension.
fn show(tensor: WireTensor) -> Result<String, Outcome> {
    let WireTensor { name, dtype, shape, mut raw } = tensor;
    let name = visible(&name);
    let shape = Shape::new(shape).map_err(|error| refused(format!("output `{name}`: {error}")))?;
    let elements = shape.elements();
    let mut shown = Vec::new();
    while shown.len() < elements.min(SHOWN_VALUES) {
        let Some(value) = values::take(dtype, &mut raw) else {
            let got = shown.len();
            return Err(refused(format!("output `{name}`: expected {elements} values, got {got}")));
        };
        shown.push(value);
    }
    let row = shape.rank().checked_sub(1).and_then(|last| shape.dim(last)).unwrap_or(1).max(1);
    let mut lines = vec![format!("{name} {dtype} {shape}")];
    lines.extend(shown.chunks(row).map(|values| format!("  {}", values.join(" "))));
    if elements > SHOWN_VALUES {
        lines.push(format!("  … and {} more", elements - SHOWN_VALUES));
    }
    Ok(lines.join("\n"))
}

#[cfg(test)]
mod tests;
