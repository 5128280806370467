//! Waits until agents have put into force what the Swarm does.

use anyhow::Result;

use super::Balanced;
use crate::swarm::{Service, Task, items, text, wait_until};

impl Balanced {
    /// Waits until exactly `count` tasks of a service run, and every agent that runs has put exactly these into force.
    ///
    /// # Errors
    /// If that takes longer than [`PATIENCE`](super::PATIENCE); the message says who lacks what.
    pub fn wait_serving(&self, service: &Service<'_>, count: usize) -> Result<Vec<Task>> {
        let tasks = service.wait_running(count)?;
        let mut names: Vec<_> = tasks.iter().map(|task| task.name.clone()).collect();
        names.sort();
        self.wait_known(service.name(), &names)?;
        Ok(tasks)
    }

    /// Waits until for every agent that runs, exactly these tasks of a service are ready, and all of its state is in
    /// force. No tasks: the service is gone.
    ///
    /// # Errors
    /// If that takes longer than [`PATIENCE`](super::PATIENCE); the message says who lacks what.
    pub fn wait_known(&self, service: &str, tasks: &[String]) -> Result<()> {
        let running = (0..self.agents.len()).filter(|index| self.agent(*index).process.is_some());
        for index in running {
            let goal = format!("the agent of {} knows the tasks of {service}", self.node(index).name());
            wait_until(&goal, || {
                // An agent that is just starting does not answer yet.
                let lag = self.lag(index, service, tasks);
                Ok(lag
                    .unwrap_or_else(|error| Some(format!("{error:#}")))
                    .map_or(Ok(()), Err))
            })?;
        }
        Ok(())
    }

    /// What a node's agent has not yet put into force of a service's tasks.
    fn lag(&self, index: usize, service: &str, tasks: &[String]) -> Result<Option<String>> {
        let list = self.admin(index, "/v1/backends")?;
        let own = items(&list["items"]).filter(|item| item["service"] == service);
        // A task is there once for each network and port.
        let mut known: Vec<_> = own.map(|item| (text(&item["task"]), text(&item["state"]))).collect();
        known.sort();
        known.dedup();
        // Asked last: what was listed above is applied, or something newer.
        let provider = self.admin(index, "/v1/status")?["items"][0]["provider"].clone();
        let ready = known.iter().map(|(task, state)| (task, state.as_str()));
        if !ready.eq(tasks.iter().map(|task| (task, "ready"))) {
            return Ok(Some(format!(
                "it knows {known:?} instead of {tasks:?}; provider: {provider}"
            )));
        }
        let applied = provider["generation"] == provider["applied"] && provider["sync_error"].is_null();
        Ok((!applied).then(|| format!("not applied; provider: {provider}")))
    }
}
