//! Upstreams, and what they say.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use hickory_proto::op::{Message, OpCode, ResponseCode};
use hickory_proto::rr::rdata::A;
use hickory_proto::rr::{RData, Record};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};

use crate::scene::OUTER;

/// What an upstream saw of one question.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) tcp: bool,
    pub(crate) from: SocketAddr,
    pub(crate) id: u16,
}

/// An upstream whose answers are what `answer` makes of each question; ends with the test's runtime.
pub(crate) async fn upstream(
    answer: impl Fn(&Message) -> Vec<Vec<u8>> + Send + Sync + 'static,
) -> (SocketAddr, Arc<Mutex<Vec<Seen>>>) {
    let (udp, tcp) = loop {
        let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        if let Ok(tcp) = TcpListener::bind(udp.local_addr().unwrap()).await {
            break (udp, tcp);
        }
    };
    let (at, answer, seen) = (
        udp.local_addr().unwrap(),
        Arc::new(answer),
        Arc::new(Mutex::new(Vec::new())),
    );
    let (answer_udp, seen_udp) = (answer.clone(), seen.clone());
    tokio::spawn(async move {
        let mut buffer = vec![0; 4096];
        while let Ok((length, from)) = udp.recv_from(&mut buffer).await {
            let question = Message::from_vec(&buffer[..length]).unwrap();
            seen_udp.lock().unwrap().push(Seen {
                tcp: false,
                from,
                id: question.metadata.id,
            });
            for bytes in answer_udp(&question) {
                udp.send_to(&bytes, from).await.unwrap();
            }
        }
    });
    let seen_tcp = seen.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, from)) = tcp.accept().await {
            let length = stream.read_u16().await.unwrap();
            let mut buffer = vec![0; length.into()];
            stream.read_exact(&mut buffer).await.unwrap();
            let question = Message::from_vec(&buffer).unwrap();
            seen_tcp.lock().unwrap().push(Seen {
                tcp: true,
                from,
                id: question.metadata.id,
            });
            for bytes in answer(&question) {
                stream.write_all(&(bytes.len() as u16).to_be_bytes()).await.unwrap();
                stream.write_all(&bytes).await.unwrap();
            }
        }
    });
    (at, seen)
}

pub(crate) fn outer(question: &Message) -> Message {
    let mut message = Message::response(question.metadata.id, OpCode::Query);
    message.add_query(question.queries[0].clone());
    message.add_answer(Record::from_rdata(
        question.queries[0].name().clone(),
        60,
        RData::A(A(OUTER.into())),
    ));
    message
}

pub(crate) fn outer_with(question: &Message, rcode: ResponseCode) -> Message {
    let mut message = outer(question);
    message.metadata.response_code = rcode;
    message.answers.clear();
    message
}

pub(crate) fn bytes(message: &Message) -> Vec<Vec<u8>> {
    vec![message.to_vec().unwrap()]
}
