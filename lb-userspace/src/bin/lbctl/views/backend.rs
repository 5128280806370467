//! Backends, and the tasks of a service.

use lb_userspace::admin::api::Backend;
use lb_userspace::model::snapshot::BackendState;

use crate::output::{Context, View, dash};
use crate::table::Table;

impl View for Backend {
    fn name(&self) -> String {
        match (&self.task, self.id) {
            (Some(task), _) => task.clone(),
            (None, id) => dash(id),
        }
    }

    fn table(items: &[Self], context: &Context) -> Table {
        let mut columns = vec![
            "SERVICE", "NETWORK", "TASK", "NODE", "ADDRESS", "PROTO", "STATE", ">WEIGHT", ">FLOWS",
        ];
        if context.wide {
            columns.extend([">ID", "LOCAL"]);
        }
        let mut table = Table::new(&columns);
        for b in items {
            table.row([
                dash(b.service.as_ref()),
                b.network.clone().unwrap_or_else(|| dash(b.network_id)),
                task(b),
                dash(b.node.as_ref()),
                address(b),
                dash(b.protocol),
                state(b).into(),
                dash(b.weight),
                b.flows.to_string(),
                dash(b.id),
                if b.local { "yes" } else { "no" }.into(),
            ]);
        }
        table
    }
}

/// The tasks of one service.
pub(crate) fn tasks(items: &[Backend], _context: &Context) -> Table {
    let mut table = Table::new(&["TASK", "NODE", "ADDRESS", "PROTO", "STATE", ">WEIGHT", ">FLOWS"]);
    for b in items {
        table.row([
            task(b),
            dash(b.node.as_ref()),
            address(b),
            dash(b.protocol),
            state(b).into(),
            dash(b.weight),
            b.flows.to_string(),
        ]);
    }
    table
}

fn task(backend: &Backend) -> String {
    match (&backend.task, backend.id) {
        (Some(task), _) => task.clone(),
        (None, Some(id)) => format!("id {id}"),
        (None, None) => "-".into(),
    }
}

fn address(backend: &Backend) -> String {
    match (backend.address, backend.port) {
        (Some(ip), Some(port)) => std::net::SocketAddr::new(ip, port).to_string(),
        (ip, _) => dash(ip),
    }
}

fn state(backend: &Backend) -> &'static str {
    match backend.state {
        Some(BackendState::Ready) => "ready",
        Some(BackendState::Draining) => "draining",
        None => "gone",
    }
}
