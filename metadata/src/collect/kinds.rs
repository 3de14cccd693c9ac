use std::sync::Arc;

use super::port::{Collectible, Edge, StoreError};
use crate::{Error, Resource, Result};

/// The stores that a collection works on.
#[derive(Clone, Debug, Default)]
pub(crate) struct Kinds(pub(crate) Vec<Arc<dyn Collectible>>);

impl Kinds {
    pub(crate) fn owner(&self, resource: &Resource) -> Option<usize> {
        self.0.iter().position(|kind| kind.owns(resource))
    }

    /// Sorts places by who owns what is there; what nobody owns is left out.
    pub(crate) fn by_owner<'a>(
        &self,
        places: Vec<u32>,
        resource: impl Fn(&u32) -> Option<&'a Resource>,
    ) -> Vec<(usize, Vec<u32>)> {
        let mut sorted: Vec<(usize, Vec<u32>)> = (0..self.0.len()).map(|kind| (kind, Vec::new())).collect();
        for place in places {
            if let Some(kind) = resource(&place).and_then(|resource| self.owner(resource)) {
                sorted[kind].1.push(place);
            }
        }
        sorted
    }

    pub(crate) async fn edges(&self, kind: usize, resources: &[Resource]) -> Result<Vec<Vec<Edge>>> {
        let edges = self.0[kind].edges(resources).await;
        let shown = || match resources {
            [one] => one.to_string(),
            [first, ..] => format!("{first} and {} more", resources.len() - 1),
            [] => String::new(),
        };
        edges.map_err(|source| failed("looking up what is behind", shown(), source))
    }

    pub(crate) async fn in_use(&self) -> Result<Vec<Resource>> {
        let mut used = Vec::new();
        for kind in &self.0 {
            let more = kind.in_use().await;
            used.extend(more.map_err(|source| failed("asking what is used of", kind.name(), source))?);
        }
        Ok(used)
    }
}

pub(crate) fn failed(action: &'static str, resource: impl ToString, source: StoreError) -> Error {
    Error::Resource {
        action,
        resource: resource.to_string(),
        source,
    }
}
