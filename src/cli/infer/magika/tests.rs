//! Rows and verdicts, against the rules in `models/magika/README.md`.

use super::*;

fn row_of(content: &[u8]) -> Vec<i32> {
    let block = usize::try_from(BLOCK_BYTES).unwrap();
    let head = &content[..content.len().min(block)];
    let tail = &content[content.len().saturating_sub(block)..];
    match row(head, tail) {
        Prepared::Row(row) => row,
        Prepared::Decided(label) => panic!("decided: {label}"),
    }
}

fn scores(label: &str, score: f32) -> Vec<f32> {
    LABELS.lines().map(|each| if each == label { score } else { 0.0 }).collect()
}

fn answer(label: &str, score: f32) -> (&'static str, bool) {
    let verdict = verdict(&scores(label, score)).unwrap();
    assert_eq!(verdict.guess, label);
    (verdict.label, verdict.is_weak)
}

#[test]
fn a_short_file_is_padded_on_the_inner_sides() {
    let row = row_of(b" \x0b\x0cshort text\r\n");
    let text: Vec<i32> = b"short text\r\n".iter().copied().map(i32::from).collect();
    assert_eq!(row[..12], text);
    assert!(row[12..1024].iter().all(|value| *value == PADDING));
    // The tail keeps the white space at the start, the head that at the end.
    let text: Vec<i32> = b" \x0b\x0cshort text".iter().copied().map(i32::from).collect();
    assert_eq!(row[2048 - 13..], text);
    assert!(row[1024..2048 - 13].iter().all(|value| *value == PADDING));
}

#[test]
fn a_long_file_gives_its_two_ends() {
    let content: Vec<u8> = (0..10_000_u32).map(|n| u8::try_from(n % 251).unwrap()).collect();
    let row = row_of(&content);
    // 0 is no white space, so nothing is trimmed at the start; the last byte is 210.
    let at = |index: usize| i32::from(content[index]);
    assert_eq!((row[0], row[1023]), (at(0), at(1023)));
    assert_eq!((row[1024], row[2047]), (at(8976), at(9999)));
}

#[test]
fn trimming_looks_no_further_than_a_block() {
    let mut content = vec![b' '; 4090];
    content.extend_from_slice(b"word and more");
    // Six bytes are left of the first block.
    assert_eq!(row(&content[..4096], &content[7..]), Prepared::Decided("txt"));
    let mut content = b"starting".to_vec();
    content.extend(vec![b'\n'; 5000]);
    let row = row_of(&content);
    assert_eq!(row[8], 10);
    assert!(row[1024..].iter().all(|value| *value == PADDING), "nothing is left of the tail");
}

#[test]
fn few_bytes_are_decided_without_the_model() {
    for (content, label) in [
        (&b""[..], "empty"),
        (b"seven 7", "txt"),
        (b"\xff\xff\xff\xff\xff\xff\xff", "unknown"),
        (b"       a", "txt"),
        (b"        \xe2\x82", "unknown"),
    ] {
        assert_eq!(row(content, content), Prepared::Decided(label), "{content:?}");
    }
    assert!(matches!(row(b"eight 88", b"eight 88"), Prepared::Row(_)));
}

#[test]
fn a_file_is_read_at_both_ends() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let content: Vec<u8> = (0..9000_u32).map(|n| u8::try_from(n % 253).unwrap()).collect();
    std::fs::write(file.path(), &content).unwrap();
    assert_eq!(prepare(file.path()).unwrap(), Prepared::Row(row_of(&content)));
    let folder = tempfile::tempdir().unwrap();
    assert!(prepare(folder.path()).unwrap_err().ends_with("not a regular file"));
    assert!(prepare(&folder.path().join("x")).unwrap_err().contains("No such file"));
}

#[test]
fn a_weak_guess_is_told_as_text_or_unknown() {
    assert_eq!(answer("python", 0.51), ("python", false));
    assert_eq!(answer("python", 0.5), ("python", false));
    assert_eq!(answer("python", 0.49), ("txt", true));
    assert_eq!(answer("markdown", 0.74), ("txt", true));
    assert_eq!(answer("markdown", 0.75), ("markdown", false));
    // 0.9 as a 32-bit float is less than 0.9.
    assert_eq!(answer("sql", 0.9), ("txt", true));
    assert_eq!(answer("zip", 0.4), ("unknown", true));
    assert_eq!(answer("randombytes", 0.99), ("unknown", false));
    assert_eq!(answer("randombytes", 0.2), ("unknown", true));
    assert_eq!(answer("randomtxt", 0.2), ("txt", true));
    assert_eq!(answer("txt", 0.2), ("txt", false));
}

#[test]
fn scores_must_fit_the_labels_and_the_first_wins_a_tie() {
    assert_eq!(verdict(&[0.5; 213]), None);
    let verdict = verdict(&[0.5; 214]).unwrap();
    assert_eq!(Some(verdict.guess), LABELS.lines().next());
}

#[test]
fn every_type_has_a_kind() {
    for label in LABELS.lines().chain(["unknown", "txt"]) {
        let kinds = CONTENT_TYPES.lines().filter(|line| line.split('\t').next() == Some(label));
        assert_eq!(kinds.count(), 1, "{label}");
    }
    for label in THRESHOLDS.map(|(label, _)| label).iter().chain(&RENAMED.map(|(from, _)| from)) {
        assert!(LABELS.lines().any(|each| each == *label), "{label}");
    }
}
