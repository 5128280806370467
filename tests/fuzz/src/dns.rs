//! What clients ask and upstreams answer.
//!
//! Input: which of the two (one byte), then the datagram.

use lb_userspace::dns::fuzz;

const CLIENT: u8 = b'c';

/// # Panics
/// If an answer is longer than its client takes, does not repeat the question, or cannot be read.
pub fn run(bytes: &[u8]) {
    match bytes.split_first() {
        None => {}
        Some((&CLIENT, question)) => fuzz::question(question),
        Some((_, answer)) => fuzz::answer(answer),
    }
}

/// Questions and answers.
pub fn seeds() -> Vec<Vec<u8>> {
    let questions = fuzz::questions().into_iter().map(|bytes| [&[CLIENT], &*bytes].concat());
    let answers = fuzz::answers().into_iter().map(|bytes| [b"u", &*bytes].concat());
    questions.chain(answers).collect()
}
