//! Bodies of answers, byte by byte.

use super::*;
use crate::pb::model_infer_response::InferOutputTensor;

fn answer(outputs: &[(&str, &str, &[i64], &[u8])]) -> ModelInferResponse {
    let output = |(name, datatype, shape, _): &(&str, &str, &[i64], &[u8])| InferOutputTensor {
        name: (*name).into(),
        datatype: (*datatype).into(),
        shape: shape.to_vec(),
        ..InferOutputTensor::default()
    };
    ModelInferResponse {
        model_name: "m".into(),
        model_version: "2".into(),
        outputs: outputs.iter().map(output).collect(),
        raw_output_contents: outputs.iter().map(|each| Bytes::copy_from_slice(each.3)).collect(),
        ..ModelInferResponse::default()
    }
}

async fn body(response: Response) -> Vec<u8> {
    axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap().to_vec()
}

async fn data(datatype: &str, raw: &[u8]) -> String {
    let response = encode(answer(&[("y", datatype, &[1], raw)]), &Binary::default()).unwrap();
    let text = String::from_utf8(body(response).await).unwrap();
    let (_, data) = text.split_once("\"data\":").unwrap();
    data.strip_suffix("}]}").unwrap().to_owned()
}

#[tokio::test]
async fn text_first_then_bytes_in_order() {
    let mut message = answer(&[
        ("a", "UINT8", &[2], &[1, 2]),
        ("b\"", "INT16", &[1, 1], &[255, 255]),
        ("c", "BYTES", &[0], &[]),
    ]);
    message.id = "7".into();
    let parameter = crate::grpc::codec::bool_parameter(true);
    message.parameters.insert("final".into(), parameter);
    let binary = Binary { otherwise: false, each: vec![Some(true), None, Some(true)] };
    assert_eq!(text_bytes(&message, &binary), 2);
    let response = encode(message, &binary).unwrap();
    assert_eq!(response.headers()[header::CONTENT_TYPE], "application/octet-stream");
    let length: usize = response.headers()[JSON_LENGTH].to_str().unwrap().parse().unwrap();
    let body = body(response).await;
    let json = concat!(
        r#"{"model_name":"m","model_version":"2","id":"7","#,
        r#""parameters":{"final":true},"outputs":["#,
        r#"{"name":"a","datatype":"UINT8","shape":[2],"parameters":{"binary_data_size":2}},"#,
        r#"{"name":"b\"","datatype":"INT16","shape":[1,1],"data":[-1]},"#,
        r#"{"name":"c","datatype":"BYTES","shape":[0],"parameters":{"binary_data_size":0}}]}"#,
    );
    assert_eq!(std::str::from_utf8(&body[..length]).unwrap(), json);
    assert_eq!(body[length..], [1, 2]);
}

#[tokio::test]
async fn text_alone_says_that_it_is_json() {
    let response = encode(answer(&[]), &Binary::default()).unwrap();
    assert_eq!(response.headers()[header::CONTENT_TYPE], "application/json");
    assert!(response.headers().get(JSON_LENGTH).is_none());
    let json = br#"{"model_name":"m","model_version":"2","outputs":[]}"#;
    assert_eq!(body(response).await, json);
}

#[tokio::test]
async fn every_datatype_is_written() {
    assert_eq!(data("BOOL", &[1, 0]).await, "[true,false]");
    assert_eq!(data("UINT8", &[0, 255]).await, "[0,255]");
    assert_eq!(data("INT8", &[0x80]).await, "[-128]");
    assert_eq!(data("UINT16", &[255, 255]).await, "[65535]");
    assert_eq!(data("UINT32", &[255; 4]).await, "[4294967295]");
    assert_eq!(data("INT32", &[255; 4]).await, "[-1]");
    assert_eq!(data("UINT64", &[255; 8]).await, "[18446744073709551615]");
    assert_eq!(data("INT64", &i64::MIN.to_le_bytes()).await, "[-9223372036854775808]");
    assert_eq!(data("FP16", &f16::from_f32(0.1).to_le_bytes()).await, "[0.099975586]");
    assert_eq!(data("BF16", &bf16::from_f32(1.5).to_le_bytes()).await, "[1.5]");
    assert_eq!(data("FP32", &0.1_f32.to_le_bytes()).await, "[0.1]");
    assert_eq!(data("FP64", &(-0.0_f64).to_le_bytes()).await, "[-0.0]");
    assert_eq!(data("BYTES", b"\x02\0\0\0\xc3\xa9\0\0\0\0\x01\0\0\0\n").await, r#"["é","","\n"]"#);
}

#[tokio::test]
async fn what_is_no_number_has_a_word() {
    let raw: Vec<u8> = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY]
        .into_iter()
        .flat_map(f32::to_le_bytes)
        .collect();
    assert_eq!(data("FP32", &raw).await, "[NaN,Infinity,-Infinity]");
    assert_eq!(data("FP16", &f16::NAN.to_le_bytes()).await, "[NaN]");
    assert_eq!(data("FP64", &f64::NEG_INFINITY.to_le_bytes()).await, "[-Infinity]");
}

#[test]
fn octets_that_are_no_text_are_refused_in_text() {
    let message = answer(&[("y", "BYTES", &[2], b"\x01\0\0\0a\x01\0\0\0\xff")]);
    let refusal = encode(message.clone(), &Binary::default()).unwrap_err();
    let sentence = "output `y`: element 1 is not UTF-8; ask for it with binary_data";
    assert_eq!(refusal.parts(), (400, sentence));
    assert!(encode(message, &Binary { otherwise: true, each: Vec::new() }).is_ok());
}
