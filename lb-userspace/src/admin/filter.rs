//! Filters `name=value`, as docker's: the same name twice is "or", different names are "and".

use super::api::{
    Backend, Check, Code, DnsAnswer, Error, Flow, Item, MapEntry, MapStatus, Plan, Program, Service, Status,
};

/// Conditions that an item must meet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter(Vec<(String, String)>);

impl Filter {
    /// Reads `name=value` conditions for items of type `T`.
    ///
    /// # Errors
    /// [`Code::Usage`] for a condition without `=` or with a field that `T` has not.
    pub fn parse<T: Item>(conditions: &[String]) -> Result<Self, Error> {
        let mut parsed = Vec::new();
        for condition in conditions {
            let Some((name, value)) = condition.split_once('=') else {
                let message = format!("filter {condition:?} is not of the form FIELD=VALUE");
                return Err(Error::new(Code::Usage, message));
            };
            if !T::FIELDS.contains(&name) {
                let hint = match T::FIELDS {
                    [] => "this list has no filters".into(),
                    fields => format!("fields: {}", fields.join(", ")),
                };
                return Err(Error::new(Code::Usage, format!("cannot filter by {name:?}")).hint(hint));
            }
            parsed.push((name.to_owned(), value.to_owned()));
        }
        Ok(Self(parsed))
    }

    /// Whether `item` meets every condition.
    pub fn matches(&self, item: &impl Item) -> bool {
        self.0.iter().all(|(name, _)| {
            let values = item.field(name);
            self.0
                .iter()
                .filter(|(n, _)| n == name)
                .any(|(_, wanted)| values.iter().any(|v| v == wanted))
        })
    }

    /// The conditions.
    pub fn conditions(&self) -> impl Iterator<Item = String> {
        self.0.iter().map(|(name, value)| format!("{name}={value}"))
    }
}

fn text(value: Option<impl ToString>) -> Vec<String> {
    value.map(|v| v.to_string()).into_iter().collect()
}

/// The names of plain enums, as JSON has them.
fn word(value: Option<impl serde::Serialize>) -> Vec<String> {
    let value = value.and_then(|v| serde_json::to_value(v).ok());
    value.and_then(|v| v.as_str().map(str::to_owned)).into_iter().collect()
}

impl Item for Service {
    const KIND: &'static str = "ServiceList";
    const FIELDS: &'static [&'static str] = &["id", "mode", "name", "network", "published", "vip"];

    fn field(&self, name: &str) -> Vec<String> {
        match name {
            "id" => self.ids.iter().map(ToString::to_string).collect(),
            "mode" => word(self.mode),
            "name" => text(self.name.as_ref()),
            "network" => [text(self.network.as_ref()), text(self.network_id)].concat(),
            "published" => self
                .ports
                .iter()
                .filter_map(|p| p.published)
                .map(|p| p.to_string())
                .collect(),
            "vip" => self.vips.iter().map(ToString::to_string).collect(),
            _ => Vec::new(),
        }
    }
}

impl Item for Backend {
    const KIND: &'static str = "BackendList";
    const FIELDS: &'static [&'static str] = &[
        "address", "id", "local", "network", "node", "protocol", "service", "state", "task",
    ];

    fn field(&self, name: &str) -> Vec<String> {
        match name {
            "address" => text(self.address),
            "id" => text(self.id),
            "local" => vec![self.local.to_string()],
            "network" => [text(self.network.as_ref()), text(self.network_id)].concat(),
            "node" => text(self.node.as_ref()),
            "protocol" => text(self.protocol),
            "service" => text(self.service.as_ref()),
            "state" => match self.state {
                Some(state) => word(Some(state)),
                None => vec!["gone".into()],
            },
            "task" => text(self.task.as_ref()),
            _ => Vec::new(),
        }
    }
}

impl Item for Flow {
    const KIND: &'static str = "FlowList";
    const FIELDS: &'static [&'static str] = &[
        "backend", "client", "frontend", "network", "origin", "protocol", "service", "state",
    ];

    fn field(&self, name: &str) -> Vec<String> {
        let both = |a: std::net::SocketAddr| vec![a.to_string(), a.ip().to_string()];
        match name {
            "backend" => self.backend.map(both).unwrap_or_default(),
            "client" => both(self.client),
            "frontend" => both(self.frontend),
            "network" => vec![self.network_id.to_string()],
            "origin" => vec![self.origin.clone().unwrap_or_else(|| "direct".into())],
            "protocol" => vec![self.protocol.to_string()],
            "service" => vec![self.service.clone()],
            "state" => vec![self.state.clone()],
            _ => Vec::new(),
        }
    }
}

impl Item for MapStatus {
    const KIND: &'static str = "MapList";
    const FIELDS: &'static [&'static str] = &["name", "type"];

    fn field(&self, name: &str) -> Vec<String> {
        match name {
            "name" => vec![self.name.clone()],
            "type" => vec![self.kind.clone()],
            _ => Vec::new(),
        }
    }
}

impl Item for Program {
    const KIND: &'static str = "ProgramList";
    const FIELDS: &'static [&'static str] = &["hook", "interface", "name"];

    fn field(&self, name: &str) -> Vec<String> {
        match name {
            "hook" => text(self.hook.as_ref()),
            "interface" => text(self.interface.as_ref()),
            "name" => text(self.name.as_ref()),
            _ => Vec::new(),
        }
    }
}

impl Item for Check {
    const KIND: &'static str = "CheckList";
    const FIELDS: &'static [&'static str] = &["id", "level"];

    fn field(&self, name: &str) -> Vec<String> {
        match name {
            "id" => vec![self.id.clone()],
            "level" => word(Some(self.level)),
            _ => Vec::new(),
        }
    }
}

macro_rules! single {
    ($($type:ty = $kind:literal;)*) => { $(
        impl Item for $type {
            const KIND: &'static str = $kind;
            const FIELDS: &'static [&'static str] = &[];

            fn field(&self, _: &str) -> Vec<String> {
                Vec::new()
            }
        }
    )* };
}

single! {
    Status = "Status";
    Plan = "Plan";
    DnsAnswer = "DnsAnswer";
    MapEntry = "MapEntryList";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn same_field_is_or_and_different_fields_are_and() {
        let backend = |node: &str, service: &str| Backend {
            node: Some(node.into()),
            service: Some(service.into()),
            ..Default::default()
        };
        let filter = Filter::parse::<Backend>(&["node=n1".into(), "node=n2".into(), "service=web".into()]).unwrap();
        assert!(filter.matches(&backend("n1", "web")));
        assert!(filter.matches(&backend("n2", "web")));
        assert!(!filter.matches(&backend("n3", "web")));
        assert!(!filter.matches(&backend("n1", "api")));
    }

    #[test]
    fn an_unknown_field_names_the_known_ones() {
        let error = Filter::parse::<MapStatus>(&["colour=red".into()]).unwrap_err();
        assert_eq!(error.code, Code::Usage);
        assert_eq!(error.hint.as_deref(), Some("fields: name, type"));
        assert!(Filter::parse::<MapStatus>(&["name".into()]).is_err());
    }
}
