//! Makes a request for a model from its metadata alone.

use std::ops::RangeInclusive;

use bytes::Bytes;
use prost::Message;
use tonic::transport::Channel;

use crate::pb::grpc_inference_service_client::GrpcInferenceServiceClient;
use crate::pb::model_infer_request::InferInputTensor;
use crate::pb::{ModelInferRequest, ModelMetadataRequest, ModelMetadataResponse};
use crate::tensor::{DataType, Fill, Shape};

/// What the metadata does not say, by input.
#[derive(Debug, Clone, Default)]
pub struct Given {
    /// Shapes that replace those of the metadata.
    pub shapes: Vec<(String, Vec<i64>)>,
    /// Values that all elements have, as settings write them; see [`Fill::parse`].
    pub values: Vec<(String, String)>,
}

/// Asks a server for a model's metadata.
///
/// # Errors
/// A sentence with the reason.
pub async fn metadata(address: &str, model: &str) -> Result<ModelMetadataResponse, String> {
    let channel = Channel::from_shared(format!("http://{address}"))
        .map_err(|error| error.to_string())?
        .connect()
        .await
        .map_err(|error| format!("cannot reach {address}: {error}"))?;
    let request = ModelMetadataRequest { name: model.to_owned(), version: String::new() };
    let answer = GrpcInferenceServiceClient::new(channel).model_metadata(request).await;
    answer.map(tonic::Response::into_inner).map_err(|status| status.message().to_owned())
}

/// An encoded request of `rows` rows. Open dimensions are `rows` on the first axis and `length`
/// elsewhere and values are small and differ, unless `given` says otherwise.
///
/// # Errors
/// A sentence with the reason, as that `given` names an input that the model lacks.
pub fn request(
    metadata: &ModelMetadataResponse,
    (rows, length): (i64, i64),
    given: &Given,
) -> Result<Bytes, String> {
    let shapes = given.shapes.iter().map(|(name, _)| name);
    let values_of = given.values.iter().map(|(name, _)| name);
    for name in shapes.chain(values_of) {
        if !metadata.inputs.iter().any(|input| input.name == *name) {
            return Err(format!("model {} has no input {name}", metadata.name));
        }
    }
    let mut message =
        ModelInferRequest { model_name: metadata.name.clone(), ..ModelInferRequest::default() };
    for input in &metadata.inputs {
        let value = given.values.iter().find(|(name, _)| *name == input.name);
        let shape = given.shapes.iter().find(|(name, _)| *name == input.name);
        let size = |(axis, dim): (usize, &i64)| match (axis, *dim) {
            (0, -1) => rows,
            (_, -1) => length,
            (_, dim) => dim,
        };
        let shape = shape.map_or_else(
            || input.shape.iter().enumerate().map(size).collect::<Vec<i64>>(),
            |(_, shape)| shape.clone(),
        );
        let dtype = DataType::from_wire_name(&input.datatype)
            .ok_or_else(|| format!("unknown datatype {}", input.datatype))?;
        let elements = Shape::new(shape.clone()).map_err(|error| error.to_string())?.elements();
        let raw = match value {
            Some((name, text)) => one_value(dtype, text, elements)
                .map_err(|problem| format!("input {name}: {problem}"))?,
            None => values(dtype, elements),
        };
        message.raw_input_contents.push(raw.into());
        message.inputs.push(InferInputTensor {
            name: input.name.clone(),
            datatype: input.datatype.clone(),
            shape,
            ..InferInputTensor::default()
        });
    }
    Ok(message.encode_to_vec().into())
}

/// Encoded requests of every length of the range, one after the other in an order that mixes long and
/// short ones.
///
/// # Errors
/// A sentence with the reason.
pub fn requests(
    metadata: &ModelMetadataResponse,
    rows: i64,
    lengths: RangeInclusive<i64>,
    given: &Given,
) -> Result<Vec<Bytes>, String> {
    let mut lengths: Vec<(i64, i64)> = lengths.enumerate().map(mixed).collect();
    lengths.sort_unstable();
    lengths.iter().map(|(_, length)| request(metadata, (rows, *length), given)).collect()
}

/// A place far from those of its neighbours: multiples of the golden section are spread evenly.
fn mixed((index, length): (usize, i64)) -> (i64, i64) {
    let place = (index as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 1;
    (i64::try_from(place).unwrap_or(0), length)
}

/// The same everywhere. Of BYTES that is the empty string, which on the wire is its length.
fn one_value(dtype: DataType, text: &str, elements: usize) -> Result<Vec<u8>, String> {
    let fill = Fill::parse(dtype, text)?;
    let element = if dtype == DataType::Bytes { &[0; 4] } else { fill.element() };
    Ok(element.repeat(elements))
}

/// Numbers from 0 to 15 in turn, halves of them for floats; one-letter strings.
fn values(dtype: DataType, elements: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    for index in 0..elements {
        let number = u8::try_from(index % 16).unwrap_or(0);
        match dtype {
            DataType::Fp32 => bytes.extend((f32::from(number) / 16.0).to_le_bytes()),
            DataType::Fp64 => bytes.extend((f64::from(number) / 16.0).to_le_bytes()),
            DataType::Fp16 => {
                bytes.extend(half::f16::from_f32(f32::from(number) / 16.0).to_le_bytes());
            }
            DataType::Bf16 => {
                bytes.extend(half::bf16::from_f32(f32::from(number) / 16.0).to_le_bytes());
            }
            DataType::Bytes => bytes.extend([1, 0, 0, 0, b'a' + number]),
            DataType::Bool => bytes.push(number & 1),
            _ => {
                let size = dtype.size_bytes().unwrap_or(1);
                bytes.extend(u64::from(number).to_le_bytes().iter().take(size));
            }
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pb::model_metadata_response::TensorMetadata;

    #[test]
    fn every_length_comes_once_and_long_and_short_ones_are_mixed() {
        let input = TensorMetadata {
            name: "ids".to_owned(),
            datatype: "INT64".to_owned(),
            shape: vec![-1, -1, 4],
        };
        let metadata = ModelMetadataResponse { inputs: vec![input], ..Default::default() };
        let lengths: Vec<i64> = requests(&metadata, 2, 3..=18, &Given::default())
            .unwrap()
            .into_iter()
            .map(|encoded| {
                let request = ModelInferRequest::decode(encoded).unwrap();
                let shape = &request.inputs[0].shape;
                assert_eq!((shape[0], shape[2]), (2, 4));
                let bytes = i64::try_from(request.raw_input_contents[0].len()).unwrap();
                assert_eq!(bytes, 2 * shape[1] * 4 * 8);
                shape[1]
            })
            .collect();
        let mut sorted = lengths.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, (3..=18).collect::<Vec<_>>());
        let near = lengths.windows(2).filter(|pair| pair[0].abs_diff(pair[1]) == 1).count();
        assert!(near <= 2, "{lengths:?}");
    }

    #[test]
    fn a_value_that_is_said_is_that_of_all_elements() {
        let input = |name: &str, datatype: &str| TensorMetadata {
            name: name.to_owned(),
            datatype: datatype.to_owned(),
            shape: vec![-1, -1],
        };
        let inputs = vec![input("ids", "INT64"), input("mask", "INT32"), input("text", "BYTES")];
        let metadata =
            ModelMetadataResponse { name: "texts".to_owned(), inputs, ..Default::default() };
        let of = |pairs: &[(&str, &str)]| {
            let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
            let given = Given { values: pairs.iter().map(owned).collect(), ..Given::default() };
            request(&metadata, (1, 3), &given)
                .map(|encoded| ModelInferRequest::decode(encoded).unwrap().raw_input_contents)
        };
        let [made_up, said] =
            [&[][..], &[("mask", "1"), ("text", "")]].map(|of_all| of(of_all).unwrap());
        assert_eq!(said[0], made_up[0]);
        assert_eq!(made_up[1][..], [0, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0]);
        assert_eq!(said[1][..], [1, 0, 0, 0].repeat(3));
        assert_eq!(said[2][..], [0; 12]);
        let problem = of(&[("mask", "x")]).unwrap_err();
        assert!(problem.contains("mask") && problem.contains("INT32"), "{problem}");
        let problem = of(&[("masks", "1")]).unwrap_err();
        assert!(problem.contains("texts") && problem.contains("masks"), "{problem}");
    }
}
