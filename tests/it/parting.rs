//! How a connection ends on the wire, with a peer that sends frames as it likes.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::TestServer;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
/// Of HEADERS and DATA; of SETTINGS and PING it is the acknowledgement.
const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;
/// Call of `ServerLive`: fields of HPACK's static table, and three that are spelled out.
const CALL: &[u8] = b"\x83\x86\x04\x2a/inference.GRPCInferenceService/ServerLive\
    \x01\x01x\x0f\x10\x10application/grpc\x00\x02te\x08trailers";

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// Kind, flags, stream and payload of the next frame; `None` at the end.
async fn next(stream: &mut TcpStream) -> Option<(u8, u8, u32, Vec<u8>)> {
    let mut head = [0; 9];
    stream.read_exact(&mut head).await.ok()?;
    let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
    let mut payload = vec![0; usize::try_from(length).unwrap()];
    stream.read_exact(&mut payload).await.ok()?;
    let number = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
    Some((head[3], head[4], number, payload))
}

#[tokio::test]
async fn a_call_sent_behind_the_confirmation_of_the_end_harms_no_other_and_is_answered() {
    let server = TestServer::start(&[]).await;
    let mut peer = TcpStream::connect(server.grpc).await.unwrap();
    let begun = frame(HEADERS, END_HEADERS, 1, CALL);
    peer.write_all(&[PREFACE, &frame(SETTINGS, 0, 0, &[]), &begun].concat()).await.unwrap();
    while next(&mut peer).await.unwrap().0 != SETTINGS {}
    let stopped = server.shut_down();

    let (mut answered, mut confirmed) = (Vec::new(), false);
    while let Some((kind, flags, stream, payload)) = next(&mut peer).await {
        match kind {
            PING if flags & ACK == 0 && !confirmed => {
                confirmed = true;
                let end = [
                    frame(PING, ACK, 0, &payload),
                    frame(HEADERS, END_HEADERS, 3, CALL),
                    frame(WINDOW_UPDATE, 0, 3, &1000_u32.to_be_bytes()),
                    frame(DATA, END_STREAM, 3, &[0; 5]),
                    frame(DATA, END_STREAM, 1, &[0; 5]),
                ];
                peer.write_all(&end.concat()).await.unwrap();
            }
            GOAWAY => assert_eq!(payload[4..8], [0; 4], "the connection was ended for an error"),
            HEADERS if flags & END_STREAM != 0 => answered.push(stream),
            _ => {}
        }
    }
    answered.sort_unstable();
    assert_eq!(answered, [1, 3]);
    assert!(stopped.await.unwrap().unwrap().complete);
}
