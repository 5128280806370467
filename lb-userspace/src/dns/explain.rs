//! What the zone answers and why, for people: the text behind `lbctl dns query`.

use std::net::IpAddr;

use hickory_proto::rr::RecordType;
use serde::{Deserialize, Serialize};

use super::zone::{Answer, Fitness, NameKind, Zone};

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asker {
    /// Whoever has this address.
    Client(IpAddr),
    /// A workload of this network.
    Network(String),
    /// One who is in no network.
    Outside,
}

/// A question that cannot be explained.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExplainError {
    /// There is no such network.
    #[error("no network named \"{name}\"; there are: {}", known.join(", "))]
    NoNetwork {
        /// The name asked for.
        name: String,
        /// The names that there are.
        known: Vec<String>,
    },
    /// Not a record type.
    #[error("unknown record type \"{0}\"; for example A, AAAA, PTR, MX or TXT")]
    NoType(String),
}

/// What becomes of a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// Answered with records.
    Answered,
    /// Answered without records (NOERROR): the name exists, the type does not.
    Empty,
    /// Sent to the upstreams.
    Forwarded,
}

/// One record of an answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExplainedRecord {
    /// `A`, `AAAA` or `PTR`.
    #[serde(rename = "type")]
    pub record_type: String,
    /// Address or name.
    pub value: String,
    /// The service that it comes from.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub service: Option<String>,
    /// The task whose address it is; none for a VIP.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub task: Option<String>,
    /// How fit it is for new flows.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub fitness: Option<Fitness>,
}

/// An answer with its reasons.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// The name asked for, as given.
    pub name: String,
    /// The record type asked for.
    #[serde(rename = "type")]
    pub record_type: String,
    /// Networks that the asker is in, in the order they are searched; none: outside.
    pub networks: Vec<String>,
    /// What becomes of the question.
    pub outcome: Outcome,
    /// The network in which the name was found.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub network: Option<String>,
    /// What the name stands for there.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub kind: Option<NameKind>,
    /// The records, in a fixed order; the server shuffles addresses.
    pub records: Vec<ExplainedRecord>,
    /// The reason, one sentence.
    pub why: String,
}

impl Zone {
    /// What `asker` gets for `name`, with reasons. `record_type` as text, any case.
    ///
    /// # Errors
    /// If the asker's network or the record type does not exist.
    pub fn explain(&self, asker: &Asker, name: &str, record_type: &str) -> Result<Explanation, ExplainError> {
        let wanted: RecordType = record_type
            .to_ascii_uppercase()
            .parse()
            .map_err(|_| ExplainError::NoType(record_type.to_owned()))?;
        let scope = match asker {
            Asker::Client(address) => self.scope(address.to_canonical()),
            Asker::Outside => Vec::new(),
            Asker::Network(network) => vec![self.network(network).ok_or_else(|| ExplainError::NoNetwork {
                name: network.clone(),
                known: self.networks.iter().map(|network| network.name.clone()).collect(),
            })?],
        };
        let mut explanation = Explanation {
            name: name.to_owned(),
            record_type: wanted.to_string(),
            networks: scope.iter().map(|&index| self.networks[index].name.clone()).collect(),
            outcome: Outcome::Forwarded,
            network: None,
            kind: None,
            records: Vec::new(),
            why: String::new(),
        };
        self.fill(&mut explanation, &scope, name, wanted);
        Ok(explanation)
    }

    fn fill(&self, explanation: &mut Explanation, scope: &[usize], name: &str, wanted: RecordType) {
        let network_name = |index: usize| self.networks[index].name.clone();
        let answer = self.answer(scope, name, wanted);
        let found = self.find(scope, name);
        if let Some((index, entry)) = &found {
            let index = *index;
            explanation.network = Some(network_name(index));
            explanation.kind = Some(entry.kind);
        }
        let kind = match explanation.kind {
            Some(NameKind::Service) => "a service",
            Some(NameKind::Tasks) => "a service's tasks",
            Some(NameKind::Task) => "a task",
            None => "",
        };
        let place = explanation.network.clone().unwrap_or_default();
        match answer {
            Answer::Addresses(addresses) => {
                explanation.outcome = Outcome::Answered;
                let records = found.map(|(_, entry)| entry.records).unwrap_or_default();
                explanation.records = records
                    .iter()
                    .filter(|record| addresses.contains(&record.address))
                    .map(|record| ExplainedRecord {
                        record_type: explanation.record_type.clone(),
                        value: record.address.to_string(),
                        service: Some(record.service.to_string()),
                        task: record.task.map(str::to_owned),
                        fitness: Some(record.fitness),
                    })
                    .collect();
                let stands_for = if explanation.records.iter().all(|record| record.task.is_none()) {
                    "VIP"
                } else if explanation
                    .records
                    .iter()
                    .all(|record| record.fitness == Some(Fitness::Draining))
                {
                    "draining tasks, as none is ready"
                } else {
                    "ready tasks"
                };
                explanation.why = match explanation.kind {
                    Some(NameKind::Task) => format!("the name of a task in network {place}"),
                    _ => format!("the name of {kind} in network {place}: {stands_for}"),
                };
            }
            Answer::Pointers(targets) => {
                explanation.outcome = Outcome::Answered;
                let index = self.reverse(scope, name).map(|(index, _)| index);
                explanation.network = index.map(network_name);
                explanation.kind = Some(NameKind::Task);
                explanation.records = targets
                    .into_iter()
                    .map(|target| ExplainedRecord {
                        record_type: "PTR".to_owned(),
                        value: format!("{target}."),
                        service: None,
                        task: None,
                        fitness: None,
                    })
                    .collect();
                explanation.why = format!(
                    "the address of a task in network {}",
                    explanation.network.as_deref().unwrap_or_default()
                );
            }
            Answer::Empty => {
                explanation.outcome = Outcome::Empty;
                explanation.why = format!("the name of {kind} in network {place}, which has no {wanted} record");
            }
            Answer::OtherType => {
                explanation.why =
                    format!("the name of {kind} in network {place}; {wanted} records come from the upstreams alone");
            }
            Answer::Unknown => explanation.why = self.why_unknown(scope, name),
        }
    }

    fn why_unknown(&self, scope: &[usize], name: &str) -> String {
        let elsewhere: Vec<_> = (0..self.networks.len())
            .filter(|index| !scope.contains(index) && self.find(&[*index], name).is_some())
            .map(|index| self.networks[index].name.as_str())
            .collect();
        match (elsewhere.as_slice(), scope) {
            ([], _) => "no such name in any network of this cluster".to_owned(),
            (networks, []) => format!(
                "known in network {}, but who asks from outside must add the network: {name}.{}",
                networks.join(", "),
                networks[0]
            ),
            (networks, _) => format!("known in network {}, which the asker is not in", networks.join(", ")),
        }
    }
}

#[cfg(test)]
mod tests;
