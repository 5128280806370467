//! Flows.

use lb_userspace::admin::api::Flow;

use crate::output::{Context, View, dash, duration};
use crate::table::Table;

impl View for Flow {
    fn name(&self) -> String {
        format!("{}/{}/{}", self.protocol, self.client, self.frontend)
    }

    fn table(items: &[Self], context: &Context) -> Table {
        let mut columns = vec![
            "PROTO", "CLIENT", "FRONTEND", "BACKEND", "STATE", ">AGE", ">EXPIRES", "ORIGIN",
        ];
        if context.wide {
            columns.extend(["SERVICE", ">NETWORK", ">SOURCE PORT"]);
        }
        let mut table = Table::new(&columns);
        for f in items {
            table.row([
                f.protocol.to_string(),
                f.client.to_string(),
                f.frontend.to_string(),
                f.backend.map_or_else(|| "gone".into(), |b| b.to_string()),
                f.state.clone(),
                duration(f.age_seconds),
                duration(f.expires_seconds),
                f.origin.clone().unwrap_or_else(|| "direct".into()),
                f.service.clone(),
                f.network_id.to_string(),
                dash(f.translated_port),
            ]);
        }
        table
    }
}
