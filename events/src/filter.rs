use crate::Event;

/// Which events a subscriber wants: those that match one of its topic prefixes and one of its namespaces. Of what is not named, all match.
///
/// ```
/// use longshore_events::{Event, EventKind, Filter};
///
/// let filter = Filter::all().topic("/tasks/").topic("/images/create").namespace("ci");
/// let start = EventKind::TaskStart { container_id: "demo".into(), pid: 7 };
/// assert!(filter.matches(&Event::now("ci", start.clone())));
/// assert!(!filter.matches(&Event::now("other", start)));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    topics: Vec<String>,
    namespaces: Vec<String>,
}

impl Filter {
    /// Every event.
    pub fn all() -> Self {
        Self::default()
    }

    /// Those whose topic starts with `prefix`, besides those of the prefixes named before.
    #[must_use]
    pub fn topic(mut self, prefix: impl Into<String>) -> Self {
        self.topics.push(prefix.into());
        self
    }

    /// Those of `namespace`, besides those of the namespaces named before.
    #[must_use]
    pub fn namespace(mut self, namespace: impl Into<String>) -> Self {
        self.namespaces.push(namespace.into());
        self
    }

    /// Whether `event` is wanted.
    pub fn matches(&self, event: &Event) -> bool {
        let topic = event.topic();
        (self.topics.is_empty() || self.topics.iter().any(|prefix| topic.starts_with(prefix.as_str())))
            && (self.namespaces.is_empty() || self.namespaces.contains(&event.namespace))
    }
}
