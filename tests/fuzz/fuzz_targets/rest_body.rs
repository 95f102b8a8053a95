//! Fuzzes `rest_body`; the body is in `targets.rs`.

#![no_main]
#![allow(dead_code)]

#[path = "../targets.rs"]
mod targets;

libfuzzer_sys::fuzz_target!(|data: &[u8]| targets::rest_body(data));
