//! What each verb does: ask, filter, render.

use std::io::IsTerminal as _;

use clap::CommandFactory as _;
use lb_userspace::admin::api::{self, Code, Error, List, Origin};
use lb_userspace::admin::filter::Filter;
use lb_userspace::admin::report;
use lb_userspace::telemetry::metrics;

use crate::args::{Args, Backend, Common, Conn, Dns, Document, From, Map, Output, Prog, Service, SourceArgs, Verb};
use crate::output::{Answer, Context, View, render};
use crate::{docs, doctor, dump, source, views};

/// Runs the verb.
pub(crate) fn run(args: Args) -> Result<Answer, Error> {
    let Args { common, from, verb } = args;
    // The option works before and behind the verb.
    let from = |source: SourceArgs| source.from.or(from).unwrap_or_default();
    match verb {
        Verb::Status { source } => status(&common, from(source)),
        Verb::Service(Service::Ls { source }) => services(&common, from(source)),
        Verb::Service(Service::Ps { name, source }) => tasks(&common, from(source), &name),
        Verb::Service(Service::Inspect { name, source }) => inspect(&common, from(source), &name),
        Verb::Backend(Backend::Ls { service, source }) => backends(&common, from(source), service),
        Verb::Conn(Conn::Ls { limit, source }) => flows(&common, from(source), limit),
        Verb::Conn(Conn::Count { fail_empty, source }) => count(&common, from(source), fail_empty),
        Verb::Dns(Dns::Query { name, from, client }) => dns(&common, &name, from.as_deref(), client),
        Verb::Map(Map::Ls) => {
            let list = List::new(Origin::Maps, report::maps(&source::maps(&common)?)?);
            filtered(list, &common)
        }
        Verb::Map(Map::Dump { name }) => {
            if !dump::names().any(|n| n == name) {
                return Err(dump::unknown(&name));
            }
            filtered(dump::dump(&source::maps(&common)?, &name)?, &common)
        }
        Verb::Prog(Prog::Ls) => programs(&common),
        Verb::Plan => plan(&common),
        Verb::Doctor { config } => {
            let list = doctor::examine(&common, &config);
            let no = list.items.iter().any(|c| c.level == api::Level::Fail);
            Ok(Answer {
                no,
                ..filtered(list, &common)?
            })
        }
        Verb::Completion { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Args::command(), "lbctl", &mut script);
            Ok(String::from_utf8_lossy(&script).into_owned().into())
        }
        Verb::Version => Ok(format!(
            "lbctl {}   api {}   schema v{}\n",
            env!("CARGO_PKG_VERSION"),
            api::API_VERSION,
            lb_common::abi::SCHEMA_VERSION
        )
        .into()),
        Verb::Docs {
            document: Document::Lbctl,
        } => Ok(docs::lbctl().into()),
        Verb::Docs {
            document: Document::Metrics,
        } => Ok(metrics::markdown().into()),
    }
}

/// Renders what `--filter` leaves.
fn filtered<T: View>(mut list: List<T>, common: &Common) -> Result<Answer, Error> {
    let filter = Filter::parse::<T>(&common.filter)?;
    list.items.retain(|item| filter.matches(item));
    Ok(render(&list, common)?.into())
}

fn status(common: &Common, from: From) -> Result<Answer, Error> {
    Filter::parse::<api::Status>(&common.filter)?;
    let list = source::ask(common, from, "/v1/status", &[], |view| {
        let schema = lb_common::abi::SCHEMA_VERSION;
        let interfaces = doctor::attached(&view.programs().unwrap_or_default());
        let datapath = api::DatapathStatus { schema, interfaces };
        report::status(
            view,
            None,
            api::Status {
                datapath,
                ..Default::default()
            },
        )
    })?;
    if common.quiet {
        let no = !list.items.iter().all(|s| s.ready);
        return Ok(Answer {
            text: String::new(),
            no,
        });
    }
    Ok(render(&list, common)?.into())
}

fn services(common: &Common, from: From) -> Result<Answer, Error> {
    Filter::parse::<api::Service>(&common.filter)?;
    let list = source::ask(common, from, "/v1/services", &[], |view| {
        report::services(view, None, &Filter::default())
    })?;
    filtered(list, common)
}

fn service(common: &Common, from: From, name: &str) -> Result<List<api::Service>, Error> {
    source::ask(common, from, &format!("/v1/services/{name}"), &[], |view| {
        report::service(view, None, name)
    })
}

fn context(common: &Common, source: Origin) -> Option<Context> {
    let people = matches!(common.output, Output::Table | Output::Wide) && !common.quiet;
    let wide = common.output == Output::Wide;
    people.then(|| Context {
        wide,
        source,
        now: std::time::SystemTime::now(),
    })
}

fn tasks(common: &Common, from: From, name: &str) -> Result<Answer, Error> {
    let filter = Filter::parse::<api::Backend>(&common.filter)?;
    let found = service(common, from, name)?;
    let tasks = found
        .items
        .iter()
        .flat_map(|s| s.tasks.iter().cloned())
        .filter(|b| filter.matches(b));
    let list = List {
        source: found.source,
        generation: found.generation,
        ..List::new(found.source, tasks.collect())
    };
    match context(common, list.source) {
        Some(context) => Ok(views::tasks(&list.items, &context).render(!common.no_headers).into()),
        None => Ok(render(&list, common)?.into()),
    }
}

fn inspect(common: &Common, from: From, name: &str) -> Result<Answer, Error> {
    let list = service(common, from, name)?;
    match context(common, list.source) {
        Some(context) => Ok(list
            .items
            .iter()
            .map(|s| views::describe(s, &context))
            .collect::<String>()
            .into()),
        None => Ok(render(&list, common)?.into()),
    }
}

fn backends(common: &Common, from: From, only: Option<String>) -> Result<Answer, Error> {
    Filter::parse::<api::Backend>(&common.filter)?;
    let mut list = match only {
        None => source::ask(common, from, "/v1/backends", &[], |view| {
            report::backends(view, None, &Filter::default())
        })?,
        Some(name) => {
            let found = service(common, from, &name)?;
            let tasks = found.items.into_iter().flat_map(|s| s.tasks).collect();
            List {
                generation: found.generation,
                ..List::new(found.source, tasks)
            }
        }
    };
    list.items
        .sort_by(|a, b| (&a.service, &a.task, a.id).cmp(&(&b.service, &b.task, b.id)));
    filtered(list, common)
}

/// Filters where the flows are: there may be a million.
fn ask_flows(common: &Common, from: From, limit: u64) -> Result<List<api::Flow>, Error> {
    let filter = Filter::parse::<api::Flow>(&common.filter)?;
    let limit_text = limit.to_string();
    let conditions: Vec<_> = filter.conditions().collect();
    let mut parameters = vec![("limit", limit_text.as_str())];
    parameters.extend(conditions.iter().map(|c| ("filter", c.as_str())));
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    source::ask(common, from, "/v1/flows", &parameters, |view| {
        report::flows(view, None, &filter, limit)
    })
}

fn flows(common: &Common, from: From, limit: u64) -> Result<Answer, Error> {
    let list = ask_flows(common, from, if limit == 0 { u64::MAX } else { limit })?;
    let (shown, total) = (list.items.len() as u64, list.total.unwrap_or(0));
    if shown < total {
        eprintln!("note: {shown} of {total} connections; --limit 0 shows all");
    }
    Ok(render(&list, common)?.into())
}

fn count(common: &Common, from: From, fail_empty: bool) -> Result<Answer, Error> {
    let list = ask_flows(common, from, 0)?;
    let total = list.total.unwrap_or(0);
    let text = match common.output {
        Output::Json | Output::Yaml => render(&list, common)?,
        _ => format!("{total}\n"),
    };
    Ok(Answer {
        text,
        no: fail_empty && total == 0,
    })
}

fn dns(common: &Common, name: &str, network: Option<&str>, client: Option<std::net::IpAddr>) -> Result<Answer, Error> {
    let client = client.map(|c| c.to_string());
    let mut parameters = vec![("name", name)];
    parameters.extend(network.map(|n| ("network", n)));
    parameters.extend(client.as_deref().map(|c| ("client", c)));
    let list: List<api::DnsAnswer> = source::agent(common, "/v1/dns", &parameters)?;
    // A name that is forwarded may exist; one of ours that does not is a "no".
    let no = list.items.iter().any(|a| a.source == "local" && a.rcode != "NOERROR");
    Ok(Answer {
        no,
        ..filtered(list, common)?
    })
}

fn programs(common: &Common) -> Result<Answer, Error> {
    let view = source::maps(common)?;
    let programs = view.programs().map_err(|e| {
        let denied = e.kind() == std::io::ErrorKind::PermissionDenied;
        let code = if denied { Code::PermissionDenied } else { Code::Internal };
        Error::new(code, format!("cannot list {}: {e}", view.directory().display())).hint("run as root")
    })?;
    let items: Vec<_> = programs.into_iter().map(doctor::program).collect();
    if items.iter().all(|p| p.run_count.is_none()) && std::io::stderr().is_terminal() && !items.is_empty() {
        eprintln!("note: run counts need `sysctl -w kernel.bpf_stats_enabled=1`");
    }
    filtered(List::new(Origin::Maps, items), common)
}

fn plan(common: &Common) -> Result<Answer, Error> {
    let list: List<api::Plan> = source::agent(common, "/v1/plan", &[])?;
    let no = list.items.iter().any(|p| p.steps > 0);
    Ok(Answer {
        no,
        ..filtered(list, common)?
    })
}
