//! Lists: every datatype, every form, every mistake.

use proptest::prelude::*;

use super::*;

fn parsed(dtype: DataType, dims: &[i64], text: &str) -> Result<Vec<u8>, String> {
    let shape = Shape::new(dims.to_vec()).unwrap();
    let mut reader = Reader::new(text.as_bytes());
    let bytes = read(&mut reader, dtype, &shape)?;
    reader.finish().map_err(|error| error.0)?;
    Ok(bytes)
}

fn floats(text: &str) -> Vec<f32> {
    let count = i64::try_from(text.split(',').count()).unwrap();
    let bytes = parsed(DataType::Fp32, &[count], text).unwrap();
    bytes.chunks_exact(4).map(bytemuck::pod_read_unaligned).collect()
}

#[test]
fn every_datatype_has_its_bytes() {
    let ok = |dtype, text| parsed(dtype, &[2], text).unwrap();
    assert_eq!(ok(DataType::Bool, "[true, false]"), [1, 0]);
    assert_eq!(ok(DataType::UInt8, "[0, 255]"), [0, 255]);
    assert_eq!(ok(DataType::Int8, "[-128, 127]"), [0x80, 0x7f]);
    assert_eq!(ok(DataType::UInt16, "[1, 65535]"), [1, 0, 255, 255]);
    assert_eq!(ok(DataType::Int16, "[-1, 2]"), [255, 255, 2, 0]);
    assert_eq!(ok(DataType::UInt32, "[1, 4294967295]")[4..], [255; 4]);
    assert_eq!(ok(DataType::Int32, "[1, -1]")[4..], [255; 4]);
    assert_eq!(ok(DataType::UInt64, "[1, 18446744073709551615]")[8..], [255; 8]);
    assert_eq!(ok(DataType::Int64, "[-9223372036854775808, -1]")[..8], i64::MIN.to_le_bytes());
    assert_eq!(ok(DataType::Fp64, "[1, 0.1]")[8..], 0.1_f64.to_le_bytes());
    assert_eq!(ok(DataType::Bytes, r#"["é", "\n\u0000"]"#), b"\x02\0\0\0\xc3\xa9\x02\0\0\0\n\0");
}

#[test]
fn words_for_what_is_no_number_are_read() {
    let values = floats("[NaN, Infinity, -Infinity, -0.0, 1e-45]");
    assert!(values[0].is_nan());
    assert_eq!(values[1..3], [f32::INFINITY, f32::NEG_INFINITY]);
    assert_eq!(values[3].to_bits(), (-0.0_f32).to_bits());
    assert_eq!(values[4].to_bits(), 1);
}

#[test]
fn lists_follow_the_dimensions_as_far_as_they_like() {
    let flat = [1, 2, 3, 4, 5, 6, 7, 8];
    for text in [
        "[1,2,3,4,5,6,7,8]",
        "[[1,2,3,4],[5,6,7,8]]",
        " [ [ [1,2] , [3,4] ] , [ [5,6] , [7,8] ] ] ",
    ] {
        assert_eq!(parsed(DataType::UInt8, &[2, 2, 2], text).unwrap(), flat, "{text}");
    }
    assert_eq!(parsed(DataType::UInt8, &[], "5").unwrap(), [5]);
    assert_eq!(parsed(DataType::UInt8, &[], "[5]").unwrap(), [5]);
    for (dims, text) in
        [(&[0][..], "[]"), (&[0, 3], "[]"), (&[2, 0], "[[],[]]"), (&[2, 0, 2], "[]")]
    {
        assert!(parsed(DataType::UInt8, dims, text).unwrap().is_empty(), "{dims:?} {text}");
    }
}

#[test]
fn every_mistake_has_its_sentence() {
    let deep = "[".repeat(5000);
    let table: &[(DataType, &[i64], &str, &str)] = &[
        (DataType::Int32, &[3], "[1,2]", "shape [3] needs 3 elements, got 2"),
        (DataType::Int32, &[1], "[1,2]", "shape [1] needs 1 elements, got more"),
        (
            DataType::Int32,
            &[2, 3],
            "[[1,2],[3,4],[5,6]]",
            "shape [2, 3] needs 3 elements in a list at depth 1, got 2",
        ),
        (DataType::Int32, &[1, 2], "[[1,2],[3,4]]", "shape [1, 2] needs 1 lists, got more"),
        (DataType::Int32, &[2], "[[1],[2]]", "data is nested deeper than shape [2]"),
        (DataType::Int32, &[1; 32], &deep, "data is nested deeper than shape"),
        (DataType::Int32, &[2, 1], "[[1],2]", "data mixes lists and elements in one list"),
        (DataType::Int32, &[2], "[1,[2]]", "data mixes lists and elements in one list"),
        (DataType::Int32, &[1], "7", "data is a number, expected a list"),
        (DataType::Int32, &[1], "{}", "data is an object, expected a list"),
        (DataType::Int32, &[1], "[null]", "element 0 is null, which is no INT32"),
        (DataType::Int32, &[2], "[1,\"2\"]", "element 1 is a string, which is no INT32"),
        (DataType::UInt8, &[1], "[256]", "element 0 is 256, which is no UINT8"),
        (DataType::UInt8, &[1], "[-1]", "element 0 is -1, which is no UINT8"),
        (DataType::Int64, &[1], "[1.0]", "element 0 is 1.0, which is no INT64"),
        (DataType::Int64, &[1], "[NaN]", "element 0 is NaN, which is no INT64"),
        (DataType::Fp32, &[1], "[3.5e38]", "element 0 is 3.5e38, which is no FP32"),
        (DataType::Fp64, &[1], "[1e999]", "element 0 is 1e999, which is no FP64"),
        (DataType::Fp32, &[1], "[true]", "element 0 is a bool, which is no FP32"),
        (DataType::Bool, &[1], "[1]", "element 0 is a number, which is no BOOL"),
        (DataType::Bytes, &[1], "[1]", "element 0 is a number, which is no BYTES"),
        (DataType::Fp16, &[1], "[1]", "FP16 has no form in JSON; send it as bytes"),
        (DataType::Bf16, &[1], "[1]", "BF16 has no form in JSON"),
        (DataType::Fp32, &[2], "[1", "EOF while parsing a list at line 1 column 2"),
        (DataType::Fp32, &[2], "[1 2]", "expected `,` or `]` at line 1 column 4"),
        (DataType::Fp32, &[2], "[1,2,]", "trailing comma"),
        (DataType::Fp32, &[1], "[01]", "invalid number"),
        (DataType::Fp32, &[1], "[nan]", "which is no FP32"),
    ];
    for (dtype, dims, text, expected) in table {
        let got = parsed(*dtype, dims, text).unwrap_err();
        assert!(got.contains(expected), "{text:.20}: {got}");
    }
}

#[test]
fn nothing_is_reserved_by_a_number_alone() {
    let got = parsed(DataType::Fp64, &[1 << 50], "[1]").unwrap_err();
    assert_eq!(got, "shape [1125899906842624] needs 1125899906842624 elements, got 1");
}

proptest! {
    #[test]
    fn shortest_text_of_a_float_is_that_float(bits in proptest::num::u32::ANY) {
        let value = f32::from_bits(bits);
        prop_assume!(value.is_finite());
        let mut buffer = zmij::Buffer::new();
        let text = format!("[{}]", buffer.format_finite(value));
        prop_assert_eq!(floats(&text)[0].to_bits(), bits);
        // Python reads a double first, then rounds.
        #[expect(clippy::cast_possible_truncation, reason = "this is the rounding")]
        let rounded = text[1..text.len() - 1].parse::<f64>().unwrap() as f32;
        prop_assert_eq!(rounded.to_bits(), bits);
    }

    #[test]
    fn no_text_panics(
        text in "[\\[\\]{}\",:0-9.eENaInfinity tru\\\\-]{0,40}",
        dims in proptest::collection::vec(0_i64..4, 0..4),
    ) {
        for dtype in DataType::ALL {
            drop(parsed(dtype, &dims, &text));
        }
    }

    #[test]
    fn nested_and_flat_lists_are_the_same(
        (rows, columns) in (0_usize..5, 1_usize..5),
        seed in proptest::num::i64::ANY,
    ) {
        let value = |row: usize, column: usize| seed.wrapping_mul(i64::try_from(row * 7 + column).unwrap());
        let list = |all: Vec<String>| format!("[{}]", all.join(","));
        let row = |row| (0..columns).map(|column| value(row, column).to_string()).collect();
        let nested = list((0..rows).map(|each| list(row(each))).collect());
        let flat = list((0..rows).flat_map(row).collect());
        let dims = [i64::try_from(rows).unwrap(), i64::try_from(columns).unwrap()];
        let nested = parsed(DataType::Int64, &dims, &nested).unwrap();
        prop_assert_eq!(&nested, &parsed(DataType::Int64, &dims, &flat).unwrap());
        prop_assert_eq!(nested.len(), rows * columns * 8);
    }
}
