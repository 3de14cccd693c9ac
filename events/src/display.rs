use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use crate::{Event, EventKind, time};

impl EventKind {
    /// Its fields by name, as text, in the order of their declaration: for people, filters and logs.
    pub fn fields(&self) -> Vec<(&'static str, Cow<'_, str>)> {
        fn text(value: &str) -> Cow<'_, str> {
            Cow::Borrowed(value)
        }
        fn number<'a>(value: impl fmt::Display) -> Cow<'a, str> {
            Cow::Owned(value.to_string())
        }
        /// Labels in one field; none when there are none.
        fn listed<'a>(labels: &BTreeMap<String, String>) -> Option<(&'static str, Cow<'a, str>)> {
            let labels: Vec<String> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
            (!labels.is_empty()).then(|| ("labels", Cow::Owned(labels.join(","))))
        }
        match self {
            Self::ContentCreate { digest, size } => vec![("digest", text(digest)), ("size", number(size))],
            Self::ContentDelete { digest } => vec![("digest", text(digest))],
            Self::ImageCreate { name, labels }
            | Self::ImageUpdate { name, labels }
            | Self::NamespaceCreate { name, labels }
            | Self::NamespaceUpdate { name, labels } => {
                let mut fields = vec![("name", text(name))];
                fields.extend(listed(labels));
                fields
            }
            Self::ImageDelete { name } | Self::NamespaceDelete { name } => vec![("name", text(name))],
            Self::SnapshotPrepare {
                key,
                parent,
                snapshotter,
            } => {
                let mut fields = vec![("key", text(key))];
                fields.extend(parent.iter().map(|parent| ("parent", text(parent))));
                fields.push(("snapshotter", text(snapshotter)));
                fields
            }
            Self::SnapshotCommit { key, name, snapshotter } => {
                vec![
                    ("key", text(key)),
                    ("name", text(name)),
                    ("snapshotter", text(snapshotter)),
                ]
            }
            Self::SnapshotRemove { key, snapshotter } => {
                vec![("key", text(key)), ("snapshotter", text(snapshotter))]
            }
            Self::ContainerCreate { id, image } => vec![("id", text(id)), ("image", text(image))],
            Self::ContainerUpdate {
                id,
                image,
                labels,
                snapshot_key,
            } => {
                let mut fields = vec![("id", text(id)), ("image", text(image))];
                fields.extend(listed(labels));
                fields.push(("snapshot_key", text(snapshot_key)));
                fields
            }
            Self::TaskCheckpointed {
                container_id,
                checkpoint,
            } => vec![("container_id", text(container_id)), ("checkpoint", text(checkpoint))],
            Self::Request {
                request,
                target,
                outcome,
            } => vec![
                ("request", text(request)),
                ("target", text(target)),
                ("outcome", text(outcome)),
            ],
            Self::ContainerDelete { id } => vec![("id", text(id))],
            Self::TaskCreate {
                container_id,
                bundle,
                pid,
            } => {
                vec![
                    ("container_id", text(container_id)),
                    ("bundle", text(bundle)),
                    ("pid", number(pid)),
                ]
            }
            Self::TaskStart { container_id, pid } => {
                vec![("container_id", text(container_id)), ("pid", number(pid))]
            }
            Self::TaskExit {
                container_id,
                id,
                pid,
                exit_status,
                exited_at,
            } => vec![
                ("container_id", text(container_id)),
                ("id", text(id)),
                ("pid", number(pid)),
                ("exit_status", number(exit_status)),
                ("exited_at", Cow::Owned(time::format(*exited_at))),
            ],
            Self::TaskDelete {
                container_id,
                pid,
                exit_status,
                exited_at,
            } => vec![
                ("container_id", text(container_id)),
                ("pid", number(pid)),
                ("exit_status", number(exit_status)),
                ("exited_at", Cow::Owned(time::format(*exited_at))),
            ],
            Self::TaskOom { container_id } | Self::TaskPaused { container_id } | Self::TaskResumed { container_id } => {
                vec![("container_id", text(container_id))]
            }
            Self::TaskExecAdded { container_id, exec_id } => {
                vec![("container_id", text(container_id)), ("exec_id", text(exec_id))]
            }
            Self::TaskExecStarted {
                container_id,
                exec_id,
                pid,
            } => {
                vec![
                    ("container_id", text(container_id)),
                    ("exec_id", text(exec_id)),
                    ("pid", number(pid)),
                ]
            }
        }
    }
}

/// One line, always: the topic and the fields, `name=value`. A value that is empty or holds anything but plain visible ASCII is quoted and escaped, so
/// that nothing a container's maker wrote can forge another field or line.
impl fmt::Display for EventKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.topic())?;
        let fields = self.fields();
        fields.iter().try_for_each(|(name, value)| field(f, name, value))
    }
}

fn field(f: &mut fmt::Formatter<'_>, name: &str, value: &str) -> fmt::Result {
    let plain = |b: u8| b.is_ascii_graphic() && b != b'"' && b != b'\\';
    match !value.is_empty() && value.bytes().all(plain) {
        true => write!(f, " {name}={value}"),
        false => write!(f, " {name}={value:?}"),
    }
}

/// The time, the namespace, the [kind](EventKind) and who asked for it, in one line.
///
/// ```
/// # use std::time::SystemTime;
/// # use longshore_events::{Event, EventKind};
/// let mut event = Event::now("default", EventKind::TaskStart { container_id: "demo".into(), pid: 7 });
/// event.time = SystemTime::UNIX_EPOCH;
/// assert_eq!(event.to_string(), "1970-01-01T00:00:00.000000000Z default /tasks/start container_id=demo pid=7");
/// ```
impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", time::format(self.time), self.namespace, self.kind)?;
        self.by.iter().try_for_each(|by| field(f, "by", by))
    }
}
