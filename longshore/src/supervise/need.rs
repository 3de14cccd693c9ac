//! What a container needs of others before it is started.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use crate::{Container, ContainerBuilder, Error, Result};

/// The fact on a container's record that says which others it needs, and how.
pub(crate) const NEEDS: &str = "longshore.depends-on";

/// How another container has to be before one that needs it is started. Written as `started`, `healthy` and `completed`; read in Compose's words too (`service_started`,
/// `service_healthy`, `service_completed_successfully`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Condition {
    /// It runs.
    #[default]
    Started,
    /// It runs and is well, by its [health check](Container::health_check).
    Healthy,
    /// It has ended with 0.
    Completed,
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Started => "started",
            Self::Healthy => "healthy",
            Self::Completed => "completed",
        })
    }
}

impl FromStr for Condition {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        match text {
            "started" | "service_started" => Ok(Self::Started),
            "healthy" | "service_healthy" => Ok(Self::Healthy),
            "completed" | "service_completed_successfully" => Ok(Self::Completed),
            _ => Err(Error::Invalid {
                what: format!("condition '{text}'"),
                reason: "it is started, healthy or completed".to_owned(),
            }),
        }
    }
}

impl ContainerBuilder {
    /// One more container that it needs: it is started after that one, once `condition` is met, and stopped before it. The other need not exist yet.
    ///
    /// That holds for [`Engine::start_in_order`](crate::Engine::start_in_order), [`Engine::stop_in_order`](crate::Engine::stop_in_order) and
    /// [`Engine::supervise_all`](crate::Engine::supervise_all); [`Container::start`] starts it alone, at once.
    pub fn depends_on(mut self, id: impl Into<String>, condition: Condition) -> Self {
        let needs = self.extensions.entry(NEEDS.to_owned()).or_default();
        if !needs.is_object() {
            *needs = serde_json::Map::new().into();
        }
        needs[id.into()] = condition.to_string().into();
        self
    }
}

impl Container {
    /// The containers that it needs, and how it needs them.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound) when it does not exist; [`Invalid`](crate::ErrorKind::Invalid) when its record says what is no condition.
    pub async fn dependencies(&self) -> Result<BTreeMap<String, Condition>> {
        needs_of(self.id(), &self.record().await?)
    }

    /// Sets the containers that it needs, instead of those that it was made with. Those who start containers look at it.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound) when it does not exist.
    pub async fn set_dependencies(&self, needs: &BTreeMap<String, Condition>) -> Result<()> {
        let words = needs
            .iter()
            .map(|(id, condition)| (id.clone(), condition.to_string().into()));
        self.set_fact(NEEDS, serde_json::Value::Object(words.collect())).await
    }
}

pub(super) fn needs_of(id: &str, record: &longshore_metadata::Container) -> Result<BTreeMap<String, Condition>> {
    let Some(needs) = record.extensions.get(NEEDS) else {
        return Ok(BTreeMap::new());
    };
    let needs = needs.as_object().ok_or_else(|| Error::Invalid {
        what: format!("'{NEEDS}' on the record of container '{id}'"),
        reason: "it is no object of ids and conditions".to_owned(),
    })?;
    let read = |(id, word): (&String, &serde_json::Value)| {
        let condition = word.as_str().unwrap_or_default().parse()?;
        Ok((id.clone(), condition))
    };
    needs.iter().map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_are_read_as_they_are_written_and_as_compose_has_them() {
        for condition in [Condition::Started, Condition::Healthy, Condition::Completed] {
            assert_eq!(
                condition.to_string().parse::<Condition>().expect("a condition"),
                condition
            );
        }
        let composed: Condition = "service_completed_successfully".parse().expect("a condition");
        assert_eq!(composed, Condition::Completed);
        for text in ["", "Started", "service_", "ended"] {
            let error = text.parse::<Condition>().expect_err(text).to_string();
            assert!(
                error.contains(&format!("'{text}'")) && error.contains("healthy"),
                "{error}"
            );
        }
    }
}
