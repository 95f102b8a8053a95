//! Messages that were compressed by the libraries that clients use.

use std::future::poll_fn;
use std::io::Write;

use flate2::write::GzEncoder;
use tonic::Code;

use super::*;

const LIMIT: usize = 1 << 20;

/// A body that comes in these parts.
struct Sent(VecDeque<Bytes>);

impl HttpBody for Sent {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        Poll::Ready(self.0.pop_front().map(|part| Ok(Frame::data(part))))
    }
}

fn body(parts: &[Vec<u8>], encoding: Compression, budget: &ByteBudget) -> Decompressed<Sent> {
    let parts = parts.iter().cloned().map(Bytes::from).collect();
    Decompressed::new(Sent(parts), encoding, LIMIT, budget.clone())
}

async fn next(body: &mut Decompressed<Sent>) -> Option<Result<Bytes, Status>> {
    let frame = poll_fn(|context| Pin::new(&mut *body).poll_frame(context)).await?;
    Some(frame.map(|frame| frame.into_data().unwrap()))
}

/// All that goes on.
async fn all(body: &mut Decompressed<Sent>) -> Result<Vec<u8>, Status> {
    let mut bytes = Vec::new();
    while let Some(part) = next(body).await {
        bytes.extend_from_slice(&part?);
    }
    Ok(bytes)
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zstd(bytes: &[u8], window_log: u32) -> Vec<u8> {
    let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
    encoder.window_log(window_log).unwrap();
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn framed(flag: u8, contents: &[u8]) -> Vec<u8> {
    let length = u32::try_from(contents.len()).unwrap().to_be_bytes();
    [&[flag], &length[..], contents].concat()
}

#[tokio::test]
async fn messages_go_on_plain_however_they_are_cut() {
    let long: Vec<u8> = (0_u32..50_000).flat_map(u32::to_be_bytes).collect();
    for (encoding, short, packed) in [
        (Compression::Gzip, gzip(b"short"), gzip(&long)),
        (Compression::Zstd, zstd(b"short", 20), zstd(&long, ZSTD_WINDOW_LOG)),
    ] {
        let sent = [framed(1, &short), framed(0, b"as it is"), framed(1, &packed), framed(1, b"")];
        let sent = sent.concat();
        let wanted = [framed(0, b"short"), framed(0, b"as it is"), framed(0, &long)].concat();
        for size in [1, 7, 4096, sent.len()] {
            let parts: Vec<_> = sent.chunks(size).map(<[u8]>::to_vec).collect();
            let budget = ByteBudget::new(LIMIT);
            let mut body = body(&parts, encoding, &budget);
            let mut came = Vec::new();
            let error = loop {
                match next(&mut body).await.unwrap() {
                    Ok(part) => came.extend_from_slice(&part),
                    Err(error) => break error,
                }
            };
            assert_eq!(came, wanted, "{encoding:?} in parts of {size}");
            // Nothing at all is not what comes out of a compressor.
            assert_eq!(error.code(), Code::Internal);
            assert!(error.message().contains(encoding.name()), "{error}");
            assert_eq!(budget.taken(), 0);
            assert!(next(&mut body).await.is_none());
        }
    }
}

#[tokio::test]
async fn one_that_comes_out_too_large_ends_at_the_limit() {
    let large = vec![0; LIMIT + 1];
    for (encoding, bomb) in
        [(Compression::Gzip, gzip(&large)), (Compression::Zstd, zstd(&large, 20))]
    {
        let budget = ByteBudget::new(2 * LIMIT);
        let error = all(&mut body(&[framed(1, &bomb)], encoding, &budget)).await.unwrap_err();
        assert_eq!(error.code(), Code::ResourceExhausted);
        assert!(error.message().contains(&LIMIT.to_string()), "{error}");
        assert_eq!(budget.taken(), 0);
    }
    let (fits, budget) = (gzip(&large[1..]), ByteBudget::new(LIMIT));
    let came = all(&mut body(&[framed(1, &fits)], Compression::Gzip, &budget)).await.unwrap();
    assert_eq!(came.len(), FRAME_BYTES + LIMIT);
}

#[tokio::test]
async fn what_comes_out_counts_until_the_next_message_is_asked_for() {
    let (contents, budget) = (vec![0; LIMIT / 2], ByteBudget::new(LIMIT));
    let sent = framed(1, &gzip(&contents)).repeat(3);
    let mut body = body(&[sent], Compression::Gzip, &budget);
    for _ in 0..3 {
        let mut came = 0;
        while came < FRAME_BYTES + contents.len() {
            came += next(&mut body).await.unwrap().unwrap().len();
            assert_eq!(budget.taken(), contents.len(), "one message at a time");
        }
    }
    assert!(next(&mut body).await.is_none());
    assert_eq!(budget.taken(), 0);
}

#[tokio::test]
async fn one_that_finds_no_memory_is_refused() {
    let budget = ByteBudget::new(LIMIT);
    let others = budget.charge(LIMIT - 10);
    let sent = framed(1, &gzip(&[0; 1000]));
    let error = all(&mut body(&[sent], Compression::Gzip, &budget)).await.unwrap_err();
    assert_eq!(error.code(), Code::ResourceExhausted);
    assert!(error.message().contains("memory for requests"), "{error}");
    drop(others);
    assert_eq!(budget.taken(), 0);
}

#[tokio::test]
async fn a_window_takes_no_more_than_it_may() {
    let budget = ByteBudget::new(LIMIT);
    let sent = framed(1, &zstd(b"short", ZSTD_WINDOW_LOG + 1));
    let error = all(&mut body(&[sent], Compression::Zstd, &budget)).await.unwrap_err();
    assert_eq!(error.code(), Code::Internal);
    assert!(error.message().contains("memory"), "{error}");
}

#[tokio::test]
async fn one_that_breaks_off_goes_on_as_it_is() {
    let mut sent = framed(1, &gzip(b"all of it"));
    sent.pop();
    let budget = ByteBudget::new(LIMIT);
    let came = all(&mut body(&[sent.clone()], Compression::Gzip, &budget)).await.unwrap();
    assert_eq!(came, sent);
}
