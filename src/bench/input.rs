//! Makes a request for a model from its metadata alone.

use std::ops::RangeInclusive;

use bytes::Bytes;
use prost::Message;
use tonic::transport::Channel;

use crate::pb::grpc_inference_service_client::GrpcInferenceServiceClient;
use crate::pb::model_infer_request::InferInputTensor;
use crate::pb::{ModelInferRequest, ModelMetadataRequest, ModelMetadataResponse};
use crate::tensor::{DataType, Shape};

/// Shapes that replace what the metadata leaves open, by input.
pub type Shapes = [(String, Vec<i64>)];

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
/// elsewhere, unless `shapes` says otherwise; values are small and differ.
///
/// # Errors
/// A sentence with the reason.
pub fn request(
    metadata: &ModelMetadataResponse,
    (rows, length): (i64, i64),
    shapes: &Shapes,
) -> Result<Bytes, String> {
    let mut message =
        ModelInferRequest { model_name: metadata.name.clone(), ..ModelInferRequest::default() };
    for input in &metadata.inputs {
        let given = shapes.iter().find(|(name, _)| *name == input.name);
        let size = |(axis, dim): (usize, &i64)| match (axis, *dim) {
            (0, -1) => rows,
            (_, -1) => length,
            (_, dim) => dim,
        };
        let shape = given.map_or_else(
            || input.shape.iter().enumerate().map(size).collect::<Vec<i64>>(),
            |(_, shape)| shape.clone(),
        );
        let dtype = DataType::from_wire_name(&input.datatype)
            .ok_or_else(|| format!("unknown datatype {}", input.datatype))?;
        let elements = Shape::new(shape.clone()).map_err(|error| error.to_string())?.elements();
        message.raw_input_contents.push(values(dtype, elements).into());
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
    shapes: &Shapes,
) -> Result<Vec<Bytes>, String> {
    let mut lengths: Vec<(i64, i64)> = lengths.enumerate().map(mixed).collect();
    lengths.sort_unstable();
    lengths.iter().map(|(_, length)| request(metadata, (rows, *length), shapes)).collect()
}

/// A place far from those of its neighbours: multiples of the golden section are spread evenly.
fn mixed((index, length): (usize, i64)) -> (i64, i64) {
    let place = (index as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 1;
    (i64::try_from(place).unwrap_or(0), length)
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
        let lengths: Vec<i64> = requests(&metadata, 2, 3..=18, &[])
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
}
