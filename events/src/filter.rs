use std::borrow::Cow;

use longshore_filter::{Fields, Filters, joined};

use crate::{Event, EventKind};

/// Which events a subscriber wants: those that match one of its topic prefixes, one of its namespaces and one of its expressions. Of what is not named, all match.
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
    expressions: Filters,
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

    /// Those that match a filter in containerd's syntax, besides those of the filters named before: `topic==/tasks/start,event.container_id~=^web`.
    ///
    /// ```
    /// use longshore_events::{Event, EventKind, Filter};
    ///
    /// let filter = Filter::all().expression("topic~=^/tasks/,event.container_id==demo")?;
    /// assert!(filter.matches(&Event::now("ci", EventKind::TaskOom { container_id: "demo".into() })));
    /// assert!(!filter.matches(&Event::now("ci", EventKind::TaskOom { container_id: "other".into() })));
    /// # Ok::<(), longshore_events::FilterError>(())
    /// ```
    ///
    /// # Errors
    /// When it is none; the error says where.
    pub fn expression(mut self, filter: &str) -> Result<Self, longshore_filter::Error> {
        self.expressions.extend([filter.parse()?]);
        Ok(self)
    }

    /// Whether `event` is wanted.
    pub fn matches(&self, event: &Event) -> bool {
        let topic = event.topic();
        (self.topics.is_empty() || self.topics.iter().any(|prefix| topic.starts_with(prefix.as_str())))
            && (self.namespaces.is_empty() || self.namespaces.contains(&event.namespace))
            && self.expressions.matches(event)
    }
}

/// `topic`, `namespace`, `by`, and `event.<field>` by the name that [`EventKind::fields`] tells; of an image's or namespace's labels `event.labels.<label>`.
impl Fields for Event {
    fn field(&self, path: &[&str]) -> Option<Cow<'_, str>> {
        match path {
            ["topic"] => Some(self.topic().into()),
            ["namespace"] => Some(self.namespace.as_str().into()),
            ["by"] => self.by.as_deref().map(Cow::Borrowed),
            ["event", "labels", label @ ..] if !label.is_empty() => self
                .kind
                .labels()?
                .get(&joined(label))
                .map(|value| value.as_str().into()),
            ["event", field] => {
                let fields = self.kind.fields().into_iter();
                fields.filter(|(name, _)| name == field).map(|(_, value)| value).next()
            }
            _ => None,
        }
    }
}

impl EventKind {
    fn labels(&self) -> Option<&std::collections::BTreeMap<String, String>> {
        match self {
            Self::ImageCreate { labels, .. }
            | Self::ImageUpdate { labels, .. }
            | Self::ContainerUpdate { labels, .. }
            | Self::NamespaceCreate { labels, .. }
            | Self::NamespaceUpdate { labels, .. } => Some(labels),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_see_every_field() {
        let labels = [("a.b".to_owned(), "c".to_owned())].into();
        let image = Event::now(
            "ci",
            EventKind::ImageCreate {
                name: "alpine".into(),
                labels,
            },
        );
        let matches = |text: &str| Filter::all().expression(text).expect("a filter").matches(&image);
        for text in [
            "topic==/images/create",
            "namespace==ci,event.name==alpine",
            "event.labels.a.b==c",
            "event.labels.\"a.b\"~=.",
            "event.labels",
            "event.pid!=7",
        ] {
            assert!(matches(text), "{text}");
        }
        for text in ["event.pid", "event.labels.a", "name==alpine", "event", "topic==/images"] {
            assert!(!matches(text), "{text}");
        }
        let either = Filter::all()
            .expression("topic==/x")
            .and_then(|f| f.expression("event.name"));
        assert!(either.expect("filters").topic("/images/").matches(&image));
        assert!(Filter::all().expression("topic=").is_err());
    }
}
