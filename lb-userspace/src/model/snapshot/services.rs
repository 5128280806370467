//! [`Services`]: a snapshot's services, each shared with the snapshots before and after in which it is the same.
//!
//! So a new snapshot costs what is new in it, and whoever follows snapshots finds out what changed
//! ([`Services::changes`]) without looking into what did not.

use std::collections::{HashMap, HashSet};
use std::ops::{Index, IndexMut};
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::Service;

/// A list of services. A copy shares them; who changes one gets its own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Services(Vec<Arc<Service>>);

/// Over services, in order.
pub type Iter<'a> = std::iter::Map<std::slice::Iter<'a, Arc<Service>>, fn(&'a Arc<Service>) -> &'a Service>;

/// What one list has and another has not; what is only elsewhere in the order is in neither.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Changes {
    /// Of the earlier list alone.
    pub gone: Vec<Arc<Service>>,
    /// Of the later list alone.
    pub come: Vec<Arc<Service>>,
}

impl Changes {
    /// Both lists have the same services.
    pub fn is_empty(&self) -> bool {
        self.gone.is_empty() && self.come.is_empty()
    }
}

impl Services {
    /// Number of services.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Each, in order.
    pub fn iter(&self) -> Iter<'_> {
        self.into_iter()
    }

    /// Each, to be changed: from then on shared with nobody.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Service> {
        self.0.iter_mut().map(Arc::make_mut)
    }

    /// Leaves none.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// Each, as it is shared.
    pub fn shared(&self) -> &[Arc<Service>] {
        &self.0
    }

    /// One, if the list is so long.
    pub fn get(&self, index: usize) -> Option<&Service> {
        self.0.get(index).map(|service| &**service)
    }

    /// Appends one.
    pub fn push(&mut self, service: impl Into<Arc<Service>>) {
        self.0.push(service.into());
    }

    /// Keeps those that `keep` wants.
    pub fn retain(&mut self, mut keep: impl FnMut(&Service) -> bool) {
        self.0.retain(|service| keep(service));
    }

    /// Takes over from `before` each service that is the same there, at whatever place.
    pub fn share(&mut self, before: &Self) {
        let key = |service: &Service| (service.network.clone(), service.name.clone());
        let mut known = None;
        for (index, service) in self.0.iter_mut().enumerate() {
            let same_place = before.0.get(index);
            if same_place.is_some_and(|there| Arc::ptr_eq(there, service)) {
                continue;
            }
            let same_place = same_place.filter(|there| there.name == service.name);
            let there = match same_place {
                Some(there) => Some(there),
                None => {
                    let by_key = || before.0.iter().map(|there| (key(there), there)).collect();
                    let known: &HashMap<_, _> = known.get_or_insert_with(by_key);
                    known.get(&key(service)).copied()
                }
            };
            if let Some(there) = there.filter(|there| *there == service) {
                *service = Arc::clone(there);
            }
        }
    }

    /// What this list has that `before` has not, and the other way round. Looks at the services' places in memory only:
    /// one that was made anew counts as gone and come.
    pub fn changes(&self, before: &Self) -> Changes {
        let same = |(a, b): &(&Arc<Service>, &Arc<Service>)| Arc::ptr_eq(a, b);
        let (old, new) = (&before.0[..], &self.0[..]);
        let head = old.iter().zip(new).take_while(same).count();
        let (old, new) = (&old[head..], &new[head..]);
        let tail = old.iter().rev().zip(new.iter().rev()).take_while(same).count();
        let (old, new) = (&old[..old.len() - tail], &new[..new.len() - tail]);
        let addresses = |list: &[Arc<Service>]| list.iter().map(Arc::as_ptr).collect::<HashSet<_>>();
        let (had, has) = (addresses(old), addresses(new));
        let without = |list: &[Arc<Service>], other: &HashSet<*const Service>| {
            let lacks = |service: &&Arc<Service>| !other.contains(&Arc::as_ptr(service));
            list.iter().filter(lacks).cloned().collect()
        };
        Changes {
            gone: without(old, &has),
            come: without(new, &had),
        }
    }
}

impl Index<usize> for Services {
    type Output = Service;

    fn index(&self, index: usize) -> &Service {
        &self.0[index]
    }
}

impl IndexMut<usize> for Services {
    fn index_mut(&mut self, index: usize) -> &mut Service {
        Arc::make_mut(&mut self.0[index])
    }
}

impl<'a> IntoIterator for &'a Services {
    type Item = &'a Service;
    type IntoIter = Iter<'a>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter().map(|service| &**service)
    }
}

impl FromIterator<Service> for Services {
    fn from_iter<I: IntoIterator<Item = Service>>(services: I) -> Self {
        Self(services.into_iter().map(Arc::new).collect())
    }
}

impl FromIterator<Arc<Service>> for Services {
    fn from_iter<I: IntoIterator<Item = Arc<Service>>>(services: I) -> Self {
        Self(services.into_iter().collect())
    }
}

impl From<Vec<Service>> for Services {
    fn from(services: Vec<Service>) -> Self {
        services.into_iter().collect()
    }
}

impl Serialize for Services {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter())
    }
}

impl<'de> Deserialize<'de> for Services {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Vec::<Service>::deserialize(deserializer).map(Self::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(names: &[&str]) -> Services {
        let service = |name: &&str| Service {
            name: (*name).into(),
            network: "n".into(),
            ..Service::default()
        };
        names.iter().map(service).collect()
    }

    fn names(services: &[Arc<Service>]) -> Vec<&str> {
        services.iter().map(|service| service.name.as_str()).collect()
    }

    #[test]
    fn a_copy_shares_until_it_changes() {
        let first = list(&["a", "b", "c"]);
        let mut second = first.clone();
        assert!(second.changes(&first).is_empty());
        second[1].aliases.push("x".into());
        assert!(first[1].aliases.is_empty());
        let changes = second.changes(&first);
        assert_eq!((names(&changes.gone), names(&changes.come)), (vec!["b"], vec!["b"]));
    }

    #[test]
    fn order_is_no_change_and_equal_ones_are_found_again() {
        let first = list(&["a", "b", "c", "d"]);
        let mut moved = list(&["d", "b", "new", "c"]);
        moved.share(&first);
        let changes = moved.changes(&first);
        assert_eq!((names(&changes.gone), names(&changes.come)), (vec!["a"], vec!["new"]));
    }

    #[test]
    fn it_is_written_as_a_plain_list() {
        let services = list(&["a"]);
        let text = serde_json::to_string(&services).unwrap();
        assert_eq!(text, serde_json::to_string(&vec![services[0].clone()]).unwrap());
        assert_eq!(serde_json::from_str::<Services>(&text).unwrap(), services);
    }
}
