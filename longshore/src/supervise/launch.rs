//! Starting containers after what they need, and stopping them before it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::future::{join_all, select, try_join_all};
use longshore_runtime::{ExitStatus, Io, Status};
use tokio::sync::watch;

use super::health::Health;
use super::need::{Condition, needs_of};
use super::order::{Needs, order};
use super::policy::Stopped;
use crate::{Container, Engine, Error, ErrorKind, Result};

/// Containers that are to be started, and what of that they need which does not run yet.
#[derive(Debug)]
pub(super) struct Plan {
    engine: Engine,
    nodes: BTreeMap<String, Node>,
}

#[derive(Debug, Clone)]
struct Node {
    container: Container,
    needs: BTreeMap<String, Condition>,
    /// It runs, so that neither it nor what it needs is touched.
    runs: bool,
    /// Somebody needs it to run, not only to have run.
    to_run: bool,
}

impl Plan {
    pub(super) fn new(engine: &Engine) -> Self {
        Self {
            engine: engine.clone(),
            nodes: BTreeMap::new(),
        }
    }

    /// Adds a container and all that it needs, or nothing.
    ///
    /// # Errors
    /// [`FailedPrecondition`](ErrorKind::FailedPrecondition) when one that it needs does not exist, or needs itself.
    pub(super) async fn add(&mut self, id: &str) -> Result<()> {
        let mut added = self.nodes.clone();
        let mut waiting = vec![(id.to_owned(), None)];
        while let Some((id, needed_by)) = waiting.pop() {
            if added.contains_key(&id) {
                continue;
            }
            let node = self.look_at(&id, needed_by.as_deref()).await?;
            if !node.runs {
                waiting.extend(node.needs.keys().map(|needed| (needed.clone(), Some(id.clone()))));
            }
            added.insert(id, node);
        }
        let needed: BTreeSet<String> = added.values().flat_map(Node::needed_to_run).cloned().collect();
        for (name, node) in &mut added {
            node.to_run |= name == id || needed.contains(name);
        }
        order(&graph(&added)).map_err(|circle| Error::Unmet {
            what: format!("starting container '{id}'"),
            reason: format!(
                "the order of start goes in a circle: {} needs {}; change what one of them depends on",
                circle.join(" needs "),
                circle[0]
            ),
        })?;
        self.nodes = added;
        Ok(())
    }

    async fn look_at(&self, id: &str, needed_by: Option<&str>) -> Result<Node> {
        let container = match (self.engine.find_container(id).await, needed_by) {
            (Err(error), Some(other)) if error.kind() == ErrorKind::NotFound => {
                return Err(Error::Unmet {
                    what: format!("starting container '{other}'"),
                    reason: format!("it needs container '{id}', which does not exist; create that first"),
                });
            }
            (found, _) => found?,
        };
        let needs = needs_of(id, &container.record().await?)?;
        let runs = match container.state().await {
            Ok(state) => matches!(state.status, Status::Running | Status::Paused),
            // The machine was started anew.
            Err(error) if error.kind() == ErrorKind::NotFound => false,
            Err(error) => return Err(error),
        };
        Ok(Node {
            container,
            needs,
            runs,
            to_run: false,
        })
    }

    /// What is to be done, each after what it waits for. All must be taken, at the same time or in this order.
    pub(super) fn steps(self) -> Vec<Step> {
        let placed = order(&graph(&self.nodes)).expect("it was in order when the last was added");
        let mut told: BTreeMap<String, watch::Receiver<bool>> = BTreeMap::new();
        let mut steps = Vec::new();
        for id in placed {
            let node = &self.nodes[&id];
            if node.runs {
                continue;
            }
            let need = |(id, condition): (&String, &Condition)| Need {
                container: self.nodes[id].container.clone(),
                condition: *condition,
                begun: told.get(id).cloned(),
            };
            let (sender, receiver) = watch::channel(false);
            steps.push(Step {
                container: node.container.clone(),
                needs: node.needs.iter().map(need).collect(),
                to_run: node.to_run,
                begun: sender,
            });
            told.insert(id, receiver);
        }
        steps
    }
}

impl Node {
    /// Those that it needs to run.
    fn needed_to_run(&self) -> impl Iterator<Item = &String> {
        let needs = self.needs.iter().filter(|_| !self.runs);
        needs
            .filter(|(_, condition)| **condition != Condition::Completed)
            .map(|(id, _)| id)
    }
}

fn graph(nodes: &BTreeMap<String, Node>) -> Needs {
    let needs = |node: &Node| match node.runs {
        true => BTreeSet::new(),
        false => node.needs.keys().cloned().collect(),
    };
    nodes.iter().map(|(id, node)| (id.clone(), needs(node))).collect()
}

/// A container to start, after what it needs.
#[derive(Debug)]
pub(super) struct Step {
    container: Container,
    needs: Vec<Need>,
    to_run: bool,
    /// Becomes true once it is started; those who wait for it see it dropped when it can't be.
    begun: watch::Sender<bool>,
}

#[derive(Debug)]
struct Need {
    container: Container,
    condition: Condition,
    /// Of the step that starts it; none if it runs.
    begun: Option<watch::Receiver<bool>>,
}

impl Step {
    pub(super) fn container(&self) -> &Container {
        &self.container
    }

    /// Whether it is started at once, waiting for nobody.
    pub(super) fn is_free(&self) -> bool {
        self.needs.is_empty()
    }

    /// It is meant to run from now on. Somebody may stop it while it waits.
    pub(super) async fn mean(&self) -> Result<()> {
        self.container.note_stopped(Stopped::No).await.map(drop)
    }

    /// Waits for what it needs and starts it, unless somebody stopped it since it was [meant](Self::mean) to run.
    pub(super) async fn take(self, io: &(dyn Fn(&str) -> Io + Send + Sync)) -> Result<()> {
        let id = self.container.id();
        if self.to_run || !self.container.has_completed().await? {
            let met = self.needs.iter().map(|need| need.met(id));
            try_join_all(met).await?;
            if self.container.stopped().await? == Stopped::Yes {
                return Err(Error::Unmet {
                    what: format!("starting container '{id}'"),
                    reason: "somebody stopped it while it waited for what it needs".to_owned(),
                });
            }
            self.container.start_now(io).await?;
        }
        self.begun.send_replace(true);
        Ok(())
    }
}

/// Every one goes as far as it can; the first that failed, in the order of start, is what made the others fail.
pub(super) async fn take_all(steps: Vec<Step>, io: &(dyn Fn(&str) -> Io + Send + Sync)) -> Result<()> {
    let outcomes = join_all(steps.into_iter().map(|step| step.take(io))).await;
    outcomes.into_iter().collect()
}

impl Need {
    /// Waits until the other container is as the container `of` needs it.
    async fn met(&self, of: &str) -> Result<()> {
        let unmet = |reason: String| Error::Unmet {
            what: format!("starting container '{of}'"),
            reason: format!("it needs container '{}', which {reason}", self.container.id()),
        };
        if let Some(mut begun) = self.begun.clone()
            && begun.wait_for(|begun| *begun).await.is_err()
        {
            return Err(unmet("could not be started".to_owned()));
        }
        match self.condition {
            Condition::Started => Ok(()),
            Condition::Completed => match self.container.wait().await?.code {
                0 => Ok(()),
                code => Err(unmet(format!("was to end with 0 and ended with {code}"))),
            },
            Condition::Healthy => match self.container.health_check().await? {
                None => Err(unmet("has no health check to be healthy by; give it one".to_owned())),
                Some(check) => {
                    // It may be well for long.
                    if self.container.is_well(&check).await.unwrap_or(false) {
                        return Ok(());
                    }
                    let healthy = Box::pin(self.container.becomes_healthy(check));
                    let ended = self.container.wait();
                    match select(healthy, Box::pin(ended)).await {
                        futures::future::Either::Left((healthy, _)) => healthy.map_err(unmet),
                        futures::future::Either::Right((ended, _)) => {
                            Err(unmet(format!("ended with {} before it was healthy", ended?.code)))
                        }
                    }
                }
            },
        }
    }
}

impl Container {
    /// Whether it has ended with 0.
    async fn has_completed(&self) -> Result<bool> {
        match self.state().await {
            Ok(state) => Ok(state.exit.is_some_and(|exit| exit.code == 0)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Starts it, whatever became of it before.
    async fn start_now(&self, io: &(dyn Fn(&str) -> Io + Send + Sync)) -> Result<()> {
        let status = match self.state().await {
            Err(error) if error.kind() == ErrorKind::NotFound => Status::Stopped,
            state => state?.status,
        };
        match status {
            Status::Stopped => self.restart(io(self.id())).await,
            // Somebody else was faster.
            Status::Running | Status::Paused => Ok(()),
            _ => self.start().await,
        }
    }

    async fn becomes_healthy(&self, check: super::HealthCheck) -> Result<(), String> {
        let mut watch = self.watch_health(check);
        loop {
            match watch.changed().await {
                Some(Health::Healthy) => return Ok(()),
                Some(Health::Unhealthy { failures }) => {
                    return Err(format!("is not well: {failures} health checks in a row failed"));
                }
                Some(Health::Starting) => {}
                None => return Err("was deleted".to_owned()),
            }
        }
    }
}

impl Engine {
    /// The containers in the order in which they are to be started, with all that they need: each after what it [depends on](crate::ContainerBuilder::depends_on). One that runs is
    /// left out, unless it is one of `ids`, and so is what only that needs, and one that was only to be completed and was.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound) for an id that is none; [`FailedPrecondition`](ErrorKind::FailedPrecondition) when one that is needed does not exist, or they need each other in a circle.
    pub async fn start_order<S: AsRef<str>>(&self, ids: &[S]) -> Result<Vec<Container>> {
        let mut plan = Plan::new(self);
        for id in ids {
            plan.add(id.as_ref()).await?;
        }
        let named: BTreeSet<&str> = ids.iter().map(AsRef::as_ref).collect();
        let placed = order(&graph(&plan.nodes)).expect("it was in order when the last was added");
        let mut wanted = Vec::new();
        for id in placed {
            let node = &plan.nodes[&id];
            let done = node.runs || !node.to_run && node.container.has_completed().await?;
            if named.contains(id.as_str()) || !done {
                wanted.push(node.container.clone());
            }
        }
        Ok(wanted)
    }

    /// Starts containers and, before each, what it [depends on](crate::ContainerBuilder::depends_on), and waits until each is as the others need it: started, healthy or
    /// completed. What does not wait for each other starts at the same time. A container that has ended is started again, its streams going where `io` says for its id; one of which
    /// only completion is needed is not, when it ended with 0. One that runs is left as it is.
    ///
    /// It waits for as long as one that is to be completed goes on; dropping the future ends the wait and leaves what is started.
    ///
    /// # Errors
    /// Those of [`start_order`](Self::start_order), before anything is started. [`FailedPrecondition`](ErrorKind::FailedPrecondition) when one that is needed ends with another status than 0
    /// or becomes unhealthy, or has no health check to be healthy by; those of a start. What needs that is not started; what does not, is.
    pub async fn start_in_order<S, F>(&self, ids: &[S], io: F) -> Result<()>
    where
        S: AsRef<str>,
        F: Fn(&str) -> Io + Send + Sync,
    {
        let steps = self.steps_to(ids).await?;
        for step in &steps {
            step.mean().await?;
        }
        take_all(steps, &io).await
    }

    pub(super) async fn steps_to<S: AsRef<str>>(&self, ids: &[S]) -> Result<Vec<Step>> {
        let mut plan = Plan::new(self);
        for id in ids {
            plan.add(id.as_ref()).await?;
        }
        Ok(plan.steps())
    }

    /// These in the order in which they are to be stopped: each before what it [depends on](crate::ContainerBuilder::depends_on). Those that need each other in a circle, and ids that
    /// are none, come in the order given.
    ///
    /// # Errors
    /// When the metadata can't be read.
    pub async fn stop_order<S: AsRef<str>>(&self, ids: &[S]) -> Result<Vec<String>> {
        let ids: Vec<String> = ids.iter().map(|id| id.as_ref().to_owned()).collect();
        let placed = order(&self.needs_among(&ids).await?);
        let place = |id: &String| {
            placed
                .as_ref()
                .ok()
                .and_then(|all| all.iter().position(|one| one == id))
        };
        let mut ids = ids;
        // Stable: what has no place stays in the order given.
        ids.sort_by_key(|id| std::cmp::Reverse(place(id)));
        Ok(ids)
    }

    async fn needs_among(&self, ids: &[String]) -> Result<Needs> {
        let mut needs = Needs::new();
        for id in ids {
            let needed = match self.find_container(id).await {
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                found => found?.dependencies().await?,
            };
            needs.insert(id.clone(), needed.into_keys().collect());
        }
        Ok(needs)
    }

    /// Stops containers, each after those of them that [depend on](crate::ContainerBuilder::depends_on) it have ended, by the signals that they want and with a grace time each. What
    /// does not depend on each other stops at the same time. Tells what came of each, in the order given; one that can't be stopped does not keep those that it needs from being stopped,
    /// and those that depend on each other in a circle are all stopped at once.
    ///
    /// # Errors
    /// When the metadata can't be read; then nothing is stopped.
    pub async fn stop_in_order<S: AsRef<str>>(
        &self,
        ids: &[S],
        grace: Duration,
    ) -> Result<Vec<(String, Result<ExitStatus>)>> {
        let ids: Vec<String> = ids.iter().map(|id| id.as_ref().to_owned()).collect();
        let needs = self.needs_among(&ids).await?;
        let needs = if order(&needs).is_ok() { needs } else { Needs::new() };
        // Each holds its sender until it has ended.
        let mut senders: BTreeMap<String, watch::Sender<()>> = BTreeMap::new();
        for id in &ids {
            senders.entry(id.clone()).or_insert_with(|| watch::channel(()).0);
        }
        let waits = |id: &String| -> Vec<watch::Receiver<()>> {
            let dependents = needs.iter().filter(|(_, needed)| needed.contains(id));
            dependents
                .map(|(dependent, _)| senders[dependent].subscribe())
                .collect()
        };
        let waits: Vec<_> = ids.iter().map(waits).collect();
        let stopped = ids.into_iter().zip(waits).map(|(id, waits)| {
            let ended = senders.remove(&id);
            async move {
                for mut dependent in waits {
                    // It is dropped when that one has ended, and nothing is ever sent.
                    let _ = dependent.changed().await;
                }
                let outcome = self.stop_wanted(&id, grace).await;
                drop(ended);
                (id, outcome)
            }
        });
        let stopped: Vec<_> = stopped.collect();
        Ok(join_all(stopped).await)
    }

    async fn stop_wanted(&self, id: &str, grace: Duration) -> Result<ExitStatus> {
        let container = self.find_container(id).await?;
        container.stop(container.stop_signal().await?, grace).await
    }
}
