//! Paths to answers.

use axum::extract::{Path, Query, State as Shared};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};

use super::State;
use super::api::{Code, DnsQuestion, Error, ErrorBody, Item, List, Origin};
use super::filter::Filter;
use super::report;

/// Parameters in the order given, so that one may come more than once.
type Parameters = Query<Vec<(String, String)>>;
type Answer = Result<Response, Refusal>;

/// Everything: for the Unix socket.
pub(super) fn full(state: State) -> Router {
    let v1 = Router::new()
        .route("/v1/status", get(status))
        .route("/v1/services", get(services))
        .route("/v1/services/{*name}", get(service))
        .route("/v1/backends", get(backends))
        .route("/v1/flows", get(flows))
        .route("/v1/plan", get(plan))
        .route("/v1/dns", get(dns));
    v1.merge(health()).fallback(unknown).with_state(state)
}

/// Metrics and health alone: for TCP.
pub(super) fn metrics_only(state: State) -> Router {
    health().with_state(state)
}

fn health() -> Router<State> {
    Router::new()
        .route("/livez", get(live))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
}

/// An [`Error`] as HTTP has it.
struct Refusal(Error);

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self(error)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = match self.0.code {
            Code::Usage => StatusCode::BAD_REQUEST,
            Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            Code::PermissionDenied => StatusCode::FORBIDDEN,
            Code::NotFound => StatusCode::NOT_FOUND,
            Code::Ambiguous => StatusCode::CONFLICT,
            Code::Version | Code::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        };
        (status, Json(ErrorBody { error: self.0 })).into_response()
    }
}

/// Walking through maps blocks, and must not hold up packets' bookkeeping or DNS.
async fn blocking<T, F>(work: F) -> Answer
where
    T: Item + serde::Serialize + Send + 'static,
    F: FnOnce() -> Result<List<T>, Error> + Send + 'static,
{
    match tokio::task::spawn_blocking(work).await {
        Ok(answer) => Ok(Json(answer?).into_response()),
        Err(e) => Err(Error::new(Code::Internal, format!("the request failed: {e}")).into()),
    }
}

fn parameter<'a>(parameters: &'a Parameters, name: &str) -> Option<&'a str> {
    parameters
        .iter()
        .find(|(n, v)| n == name && !v.is_empty())
        .map(|(_, v)| v.as_str())
}

fn filter<T: Item>(parameters: &Parameters) -> Result<Filter, Error> {
    let conditions: Vec<_> = parameters
        .iter()
        .filter(|(n, _)| n == "filter")
        .map(|(_, v)| v.clone())
        .collect();
    Filter::parse::<T>(&conditions)
}

async fn status(Shared(state): Shared<State>) -> Answer {
    blocking(move || {
        let status = state.status.borrow().clone();
        let snapshot = state.snapshot.borrow().clone();
        report::status(&*state.view, Some(&snapshot), status)
    })
    .await
}

async fn services(Shared(state): Shared<State>, parameters: Parameters) -> Answer {
    let filter = filter::<super::api::Service>(&parameters)?;
    blocking(move || {
        let snapshot = state.snapshot.borrow().clone();
        report::services(&*state.view, Some(&snapshot), &filter)
    })
    .await
}

async fn service(Shared(state): Shared<State>, Path(name): Path<String>) -> Answer {
    blocking(move || {
        let snapshot = state.snapshot.borrow().clone();
        report::service(&*state.view, Some(&snapshot), &name)
    })
    .await
}

async fn backends(Shared(state): Shared<State>, parameters: Parameters) -> Answer {
    let filter = filter::<super::api::Backend>(&parameters)?;
    blocking(move || {
        let snapshot = state.snapshot.borrow().clone();
        report::backends(&*state.view, Some(&snapshot), &filter)
    })
    .await
}

async fn flows(Shared(state): Shared<State>, parameters: Parameters) -> Answer {
    let filter = filter::<super::api::Flow>(&parameters)?;
    let limit = match parameter(&parameters, "limit").map(str::parse) {
        None => report::DEFAULT_LIMIT,
        Some(Ok(limit)) => limit,
        Some(Err(_)) => return Err(Error::new(Code::Usage, "limit must be a number").into()),
    };
    blocking(move || {
        let snapshot = state.snapshot.borrow().clone();
        report::flows(&*state.view, Some(&snapshot), &filter, limit)
    })
    .await
}

async fn plan(Shared(state): Shared<State>) -> Answer {
    blocking(move || Ok(List::new(Origin::Agent, vec![(state.plan)()?]))).await
}

async fn dns(Shared(state): Shared<State>, parameters: Parameters) -> Answer {
    let Some(name) = parameter(&parameters, "name") else {
        return Err(Error::new(Code::Usage, "name is missing").into());
    };
    let client = match parameter(&parameters, "client").map(str::parse) {
        None => None,
        Some(Ok(client)) => Some(client),
        Some(Err(_)) => return Err(Error::new(Code::Usage, "client must be an address").into()),
    };
    let network = parameter(&parameters, "network").map(str::to_owned);
    let question = DnsQuestion {
        name: name.into(),
        network,
        client,
    };
    blocking(move || Ok(List::new(Origin::Agent, vec![(state.dns)(&question)?]))).await
}

/// The process turns.
async fn live() -> &'static str {
    "ok\n"
}

async fn ready(Shared(state): Shared<State>) -> Response {
    if state.status.borrow().ready {
        "ok\n".into_response()
    } else {
        (
            StatusCode::SERVICE_UNAVAILABLE,
            "not ready: the first synchronisation has not succeeded yet\n",
        )
            .into_response()
    }
}

async fn metrics(Shared(state): Shared<State>) -> Response {
    const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    match tokio::task::spawn_blocking(move || state.metrics.render(&state)).await {
        Ok(Ok(text)) => ([(header::CONTENT_TYPE, OPEN_METRICS)], text).into_response(),
        Ok(Err(e)) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{e}\n")).into_response(),
        Err(e) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{e}\n")).into_response(),
    }
}

async fn unknown() -> Refusal {
    Refusal(
        Error::new(Code::Version, "no such path: this agent speaks v1").hint("use the lbctl of the agent's version"),
    )
}
