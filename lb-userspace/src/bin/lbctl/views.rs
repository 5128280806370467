//! How each kind of item looks: columns of lists, and pages for single objects.

mod backend;
mod flow;
mod kernel;
mod pages;
mod service;
mod status;

pub(crate) use backend::tasks;
pub(crate) use kernel::percent;
pub(crate) use service::describe;

fn list(items: impl Iterator<Item = impl ToString>) -> String {
    let all: Vec<_> = items.map(|i| i.to_string()).collect();
    if all.is_empty() { "-".into() } else { all.join(",") }
}

#[cfg(test)]
mod tests;
