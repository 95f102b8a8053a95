//! Messages in pieces, what is no message, answers, and refusals whose words are kept.

use futures_util::FutureExt;
use tonic::Code;

use super::*;

/// A body that comes in these pieces.
struct Pieces(std::vec::IntoIter<Vec<u8>>);

impl Body for Pieces {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        Poll::Ready(self.0.next().map(|data| Ok(Frame::data(data.into()))))
    }
}

fn received(pieces: Vec<Vec<u8>>, limit: usize) -> Result<Bytes, Status> {
    read(Pieces(pieces.into_iter()), limit).now_or_never().unwrap()
}

fn framed(message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    [&[0], &length[..], message].concat()
}

#[test]
fn a_message_is_the_same_however_it_is_cut() {
    let message: Vec<u8> = (0..=255).cycle().take(3000).collect();
    let bytes = framed(&message);
    for size in [1, 2, 4, 5, 6, 7, 100, 1500, 2999, 3004, 3005] {
        let pieces = bytes.chunks(size).map(<[u8]>::to_vec).collect();
        assert_eq!(received(pieces, 3000).unwrap(), message, "in pieces of {size}");
    }
    assert_eq!(received(vec![framed(&[])], 0).unwrap(), Bytes::new());
}

#[test]
fn a_whole_message_is_not_copied() {
    let bytes = Bytes::from(framed(&[7; 100]));
    let place = bytes[FRAME_BYTES..].as_ptr();
    let mut received = Received::Nothing;
    received.push(bytes, 100).unwrap();
    assert_eq!(received.message().unwrap().as_ptr(), place);
}

#[test]
fn what_is_no_message_is_refused() {
    let code = |pieces, limit| received(pieces, limit).unwrap_err().code();
    assert_eq!(code(vec![], 9), Code::Internal);
    assert_eq!(code(vec![vec![0, 0, 0]], 9), Code::Internal, "not even a prefix");
    assert_eq!(code(vec![framed(&[1; 9])[..13].to_vec()], 9), Code::Internal, "it ends early");
    assert_eq!(code(vec![framed(&[1]), framed(&[1])], 9), Code::Internal, "two messages");
    assert_eq!(code(vec![vec![1, 0, 0, 0, 0]], 9), Code::Internal, "compressed");
    let error = received(vec![framed(&[1; 10])], 9).unwrap_err();
    assert_eq!(error.code(), Code::ResourceExhausted);
    assert_eq!(error.message(), "message has 10 bytes, the limit is 9");
    // It is refused by its length, before it has come.
    assert_eq!(code(vec![vec![0, 0xff, 0xff, 0xff, 0xff]], 9), Code::ResourceExhausted);
}

#[test]
fn a_length_by_itself_reserves_nothing() {
    let mut pieces = BytesMut::from(&[0, 0xff, 0xff, 0xff, 0xff][..]);
    extend(&mut pieces, &[1; 100]);
    assert!(pieces.capacity() < 1000, "{}", pieces.capacity());
}

#[test]
fn an_answer_is_its_message_and_its_status() {
    let answer = ModelInferResponse { model_name: "m".into(), ..ModelInferResponse::default() };
    let mut body = encode(&answer).unwrap().into_body();
    let data = body.next().unwrap().into_data().unwrap();
    let message = received(vec![data.to_vec()], 100).unwrap();
    assert_eq!(ModelInferResponse::decode(message).unwrap(), answer);
    let trailers = body.next().unwrap().into_trailers().unwrap();
    assert_eq!(trailers["grpc-status"], "0");
    assert!(body.next().is_none());
}

#[test]
fn refusals_with_the_same_words_have_the_same_headers() {
    let of = |wait, left| {
        let [wait, left] = [wait, left].map(Duration::from_micros);
        let retry_after = Duration::from_millis(2);
        Failure::Failed(PredictError::Congested { wait, left, retry_after })
    };
    let headers = |failure: &Failure| failure.status("").into_http::<PlainBody>().into_parts().0;
    let (one, same, other) = (of(46_300, 49_100), of(41_000, 50_000), of(46_300, 60_000));
    assert_eq!(Refusal::of(&one), Refusal::of(&same));
    assert_eq!(headers(&one).headers, headers(&same).headers);
    assert_ne!(Refusal::of(&one), Refusal::of(&other));
    assert_eq!(Refusal::of(&Failure::Failed(PredictError::ShuttingDown)), None);
}

#[test]
fn an_answer_announces_no_length() {
    let answer = AnswerBody::<Pieces>::Plain(PlainBody::Status);
    assert_eq!((answer.size_hint().exact(), answer.is_end_stream()), (None, false));
    assert!(AnswerBody::<Pieces>::Plain(PlainBody::Done).is_end_stream());
}
