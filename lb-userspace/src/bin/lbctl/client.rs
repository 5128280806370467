//! One HTTP request to the agent's Unix socket.

use std::io;
use std::path::Path;
use std::time::Duration;

use http_body_util::{BodyExt as _, Empty};
use hyper::body::Bytes;
use hyper::{Request, header};
use hyper_util::rt::TokioIo;
use lb_userspace::admin::api::{API_VERSION, Code, Error, ErrorBody, Item, List};
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

/// Why the agent gave no answer.
#[derive(Debug)]
pub(crate) enum AgentError {
    /// Nobody listens, or nobody may be asked: the maps may still tell.
    Unreachable(io::Error),
    /// The agent answered that it cannot, or something incomprehensible.
    Refused(Error),
}

/// Sends `GET path` and reads a list.
pub(crate) fn get<T: Item + DeserializeOwned>(
    socket: &Path,
    timeout: Duration,
    path: &str,
    parameters: &[(&str, &str)],
) -> Result<List<T>, AgentError> {
    let internal = |e: &dyn std::fmt::Display| AgentError::Refused(Error::new(Code::Internal, e.to_string()));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| internal(&e))?;
    let uri = uri(path, parameters);
    let answer = runtime.block_on(async { tokio::time::timeout(timeout, fetch(socket, &uri)).await });
    let body = match answer {
        Ok(body) => body.map_err(AgentError::Unreachable)?,
        Err(_) => {
            let message = format!("no answer within {}", humantime::format_duration(timeout));
            return Err(AgentError::Unreachable(io::Error::new(
                io::ErrorKind::TimedOut,
                message,
            )));
        }
    };
    parse(&body).map_err(AgentError::Refused)
}

async fn fetch(socket: &Path, uri: &str) -> io::Result<Bytes> {
    let stream = UnixStream::connect(socket).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(other)?;
    let connection = tokio::spawn(connection);
    let request = Request::get(uri)
        .header(header::HOST, "localhost")
        .body(Empty::<Bytes>::new())
        .map_err(io::Error::other)?;
    let response = sender.send_request(request).await.map_err(other)?;
    let body = response.into_body().collect().await.map_err(other)?.to_bytes();
    connection.abort();
    Ok(body)
}

fn other(error: hyper::Error) -> io::Error {
    io::Error::other(error)
}

/// Reads an answer, after its version.
fn parse<T: Item + DeserializeOwned>(body: &[u8]) -> Result<List<T>, Error> {
    let strange = |e: serde_json::Error| {
        Error::new(Code::Version, format!("cannot understand the agent's answer: {e}"))
            .hint("use the lbctl of the agent's version; --from maps reads the maps instead")
    };
    let value: serde_json::Value = serde_json::from_slice(body).map_err(strange)?;
    if value.get("error").is_some() {
        return Err(serde_json::from_value::<ErrorBody>(value).map_err(strange)?.error);
    }
    let version = value.get("api_version").and_then(|v| v.as_str()).unwrap_or("none");
    if version != API_VERSION {
        let message = format!("the agent speaks API version {version}, this lbctl {API_VERSION}");
        return Err(Error::new(Code::Version, message).hint("use the lbctl of the agent's version"));
    }
    serde_json::from_value(value).map_err(strange)
}

fn uri(path: &str, parameters: &[(&str, &str)]) -> String {
    let query: Vec<_> = parameters
        .iter()
        .map(|(name, value)| format!("{name}={}", encode(value, "")))
        .collect();
    let path = encode(path, "/");
    if query.is_empty() {
        path
    } else {
        format!("{path}?{}", query.join("&"))
    }
}

/// Percent-encodes everything but letters, digits, `-._~` and `keep`.
fn encode(text: &str, keep: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~".contains(&b) || keep.as_bytes().contains(&b);
    text.bytes()
        .map(|b| {
            if plain(b) {
                char::from(b).to_string()
            } else {
                format!("%{b:02X}")
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use lb_userspace::admin::api::Service;

    use super::*;

    #[test]
    fn names_are_encoded() {
        let uri = uri("/v1/services/a b/ü", &[("filter", "name=x&y")]);
        assert_eq!(uri, "/v1/services/a%20b/%C3%BC?filter=name%3Dx%26y");
    }

    #[test]
    fn another_version_is_named() {
        let error = parse::<Service>(br#"{"api_version":"v2","kind":"ServiceList","items":{}}"#).unwrap_err();
        assert_eq!(error.code, Code::Version);
        assert_eq!(error.message, "the agent speaks API version v2, this lbctl v1");
        assert_eq!(parse::<Service>(b"<html>").unwrap_err().code, Code::Version);
    }

    #[test]
    fn the_agents_own_errors_come_through() {
        let body = br#"{"error":{"code":"not_found","message":"no service named \"x\"","hint":"look"}}"#;
        let error = parse::<Service>(body).unwrap_err();
        assert_eq!((error.code, error.hint.as_deref()), (Code::NotFound, Some("look")));
    }
}
