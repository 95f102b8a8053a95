//! The text of a `config.pbtxt` as a message.
//!
//! The text format is read by `prost-reflect` with the schema `model_config.proto`. Its parser
//! calls itself for each message inside a message, and a spelling for messages of any type
//! (`[domain/type] { … }`) lets a text nest without end, so size and depth are bounded before. It
//! also wants a colon in front of every list, where the format has none to ask for in front of a
//! list of messages (`input [ { … } ]`, the usual form): the colon is put in before.
//!
//! Source: Protocol Buffers, "Text Format Language Specification".

use std::sync::LazyLock;

use miette::Diagnostic;
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor};

use crate::config::ConfigErrors;

/// Largest text, in bytes. Real files have a few hundred.
pub(crate) const MAX_BYTES: usize = 1 << 20;
/// Deepest nesting; the schema itself goes six messages deep.
const MAX_DEPTH: usize = 32;

/// The schema, compiled from `proto/`.
static SCHEMA: LazyLock<Option<MessageDescriptor>> = LazyLock::new(|| {
    let bytes = include_bytes!(concat!(env!("OUT_DIR"), "/model_config_descriptor.bin"));
    let pool = DescriptorPool::decode(bytes.as_slice()).ok()?;
    pool.get_message_by_name("inference.ModelConfig")
});

/// Descriptor of the message that a file holds.
pub(super) fn schema() -> Option<MessageDescriptor> {
    SCHEMA.clone()
}

/// Reads the text.
///
/// # Errors
/// What the first mistake is and on which line: text that does not follow the format, a field that
/// the schema lacks, a value of another type; or a bound that is exceeded.
pub(super) fn read(text: &str) -> Result<DynamicMessage, ConfigErrors> {
    if text.len() > MAX_BYTES {
        let problem = format!("has {} bytes, the most is {MAX_BYTES}", text.len());
        return Err(ConfigErrors::one("text", problem));
    }
    let scan = Scan::of(text);
    if let Some(offset) = scan.too_deep {
        let problem = format!("nests deeper than {MAX_DEPTH} messages");
        return Err(ConfigErrors::one(&line(text, offset), problem));
    }
    let text = &with_colons(text, &scan.bare_lists);
    let Some(schema) = schema() else {
        return Err(ConfigErrors::one("schema", "this build has none".to_owned()));
    };
    DynamicMessage::parse_text_format(schema, text).map_err(|error| {
        let first = error.labels().and_then(|mut labels| labels.next());
        let offset = first.map_or(text.len(), |label| label.offset());
        ConfigErrors::one(&line(text, offset), error.to_string())
    })
}

/// The line that a byte stands on.
fn line(text: &str, offset: usize) -> String {
    let ends = text.bytes().take(offset).filter(|byte| *byte == b'\n');
    format!("line {}", ends.count() + 1)
}

/// What is seen of a text from its brackets. Those in strings and comments are none. Where a string
/// or a bracket does not end as the format wants, the parser stops, and so does this.
#[derive(Default)]
struct Scan {
    /// Where it first nests too deep.
    too_deep: Option<usize>,
    /// Where a list begins right after a name, without a colon.
    bare_lists: Vec<usize>,
}

impl Scan {
    fn of(text: &str) -> Self {
        let mut scan = Self::default();
        // The only outcome is what was seen.
        let _ended_early = scan.walk(text).is_none();
        scan
    }

    fn walk(&mut self, text: &str) -> Option<()> {
        let mut depth = 0_usize;
        let mut after_name = false;
        let mut bytes = text.bytes().enumerate();
        while let Some((offset, byte)) = bytes.next() {
            match byte {
                b'#' => {
                    bytes.find(|(_, byte)| *byte == b'\n')?;
                    continue;
                }
                quote @ (b'"' | b'\'') => skip_string(&mut bytes, quote)?,
                b'{' | b'<' | b'[' => {
                    depth += 1;
                    if depth > MAX_DEPTH {
                        self.too_deep = Some(offset);
                        return None;
                    }
                    if byte == b'[' && after_name {
                        self.bare_lists.push(offset);
                    }
                }
                b'}' | b'>' | b']' => depth = depth.checked_sub(1)?,
                _ => {}
            }
            if !byte.is_ascii_whitespace() {
                after_name = byte.is_ascii_alphanumeric() || byte == b'_';
            }
        }
        Some(())
    }
}

/// Goes to the end of a string; `None` if it has none on its line.
fn skip_string(bytes: &mut impl Iterator<Item = (usize, u8)>, quote: u8) -> Option<()> {
    loop {
        match bytes.next()?.1 {
            b'\\' => drop(bytes.next()?),
            b'\n' => return None,
            byte if byte == quote => return Some(()),
            _ => {}
        }
    }
}

/// The text with a colon at each of the offsets, on the same lines.
fn with_colons(text: &str, offsets: &[usize]) -> String {
    let mut whole = String::with_capacity(text.len() + offsets.len());
    let mut from = 0;
    for offset in offsets {
        whole.push_str(text.get(from..*offset).unwrap_or_default());
        whole.push(':');
        from = *offset;
    }
    whole.push_str(text.get(from..).unwrap_or_default());
    whole
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(text: &str) -> String {
        read(text).unwrap_err().to_string()
    }

    #[test]
    fn mistakes_are_told_with_their_line() {
        assert_eq!(
            problem("name: \"a\"\n\nmax_batchsize: 8\n"),
            "line 3: field 'max_batchsize' not found for message 'inference.ModelConfig'"
        );
        assert!(
            problem("input {\n  dims: [ \"x\" ]\n}").starts_with("line 2: expected an integer")
        );
        assert!(problem("input {\n data_type: FP32\n}").starts_with("line 2: value 'FP32'"));
        assert!(problem("input {\n\n").starts_with("line 3: "));
        assert!(problem("max_batch_size: 1\nmax_batch_size: 2").contains("already set"));
    }

    #[test]
    fn brackets_count_only_outside_of_strings_and_comments() {
        let too_deep = |text: &str| Scan::of(text).too_deep;
        assert_eq!(too_deep(&"{[<".repeat(20)), Some(MAX_DEPTH));
        assert_eq!(too_deep(&"{}".repeat(100)), None);
        assert_eq!(too_deep(&"# {{{{\n".repeat(100)), None);
        assert_eq!(too_deep(&"'{{' \"\\\"{{\" ".repeat(100)), None);
        // A closing bracket in a comment hides nothing.
        assert!(too_deep(&"{ # }\n".repeat(100)).is_some());
        // Messages of any type, each inside the one before.
        let nested = "[a/inference.ModelConfig] {".repeat(30_000);
        assert!(problem(&nested).contains("nests deeper"), "{}", problem(&nested));
        assert!(problem(&" ".repeat(MAX_BYTES + 1)).contains("the most is"));
    }

    #[test]
    fn a_list_of_messages_needs_no_colon() {
        for text in [
            "input [ { name: 'a' }, { name: 'b' } ]",
            "input\n# they [\n[ { name: 'a' }, < name: 'b' > ]",
            "input: [ { name: 'a' }, { name: 'b' } ]",
            "input { name: 'a' } input: { name: 'b' };",
        ] {
            let message = read(text).unwrap();
            let inputs = message.get_field_by_name("input").unwrap().into_owned();
            assert_eq!(inputs.as_list().unwrap().len(), 2, "{text}");
        }
        assert!(read("name: \"input [\"").is_ok());
        assert!(problem("input [ { name: 'a' }\n{ } ]").starts_with("line 2: expected ','"));
    }
}
