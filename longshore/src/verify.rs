//! Content verified against what images need, and repaired from where the images came from.

use std::collections::{HashMap, HashSet};

use async_trait::async_trait;
use futures::{StreamExt, TryStreamExt};
use longshore_content::{
    BlobSource, ContentStoreExt, Problem, Repair, Subject, Supply, Verification, Verifier, repair,
};
use longshore_distribution::{Fetcher, Reference, parse_reference};
use longshore_metadata::{Kind, Record, Value};
use oci_spec::image::{Descriptor, Digest, ImageConfiguration, ImageIndex, ImageManifest};

use crate::error::At;
use crate::image::{DOCUMENT_LIMIT, MANIFEST_LABEL};
use crate::{Engine, Result};

impl Engine {
    /// Reads again every blob of the content store, and tells which are damaged, and which that an image of any namespace needs are missing or have
    /// a wrong length. `prepare` may bound the speed and ask for progress.
    ///
    /// ```no_run
    /// # async fn example(engine: longshore::Engine) -> longshore::Result<()> {
    /// let found = engine.verify_content(|verifier| verifier).await?;
    /// let repair = engine.repair_content(found.problems).await?;
    /// # let _ = repair; Ok(())
    /// # }
    /// ```
    ///
    /// What an image needs is known from its manifest: when that itself is damaged, what is behind it is known after the repair.
    ///
    /// # Errors
    /// When the stores can't be listed. What is wrong with blobs is in the answer.
    pub async fn verify_content<'a>(
        &'a self,
        prepare: impl FnOnce(Verifier<'a>) -> Verifier<'a> + Send,
    ) -> Result<Verification> {
        let mut subjects: Vec<Subject> = self.needed().await?.into_values().map(|need| need.subject()).collect();
        let needed: HashSet<Digest> = subjects.iter().map(|subject| subject.digest.clone()).collect();
        let doing = "listing the content store";
        let walked: Vec<_> = self.content.walk().try_collect().await.at(doing)?;
        let others = walked.into_iter().filter(|info| !needed.contains(&info.digest));
        subjects.extend(others.map(|info| Subject::from(info.digest)));
        subjects.sort_by(|one, other| one.digest.digest().cmp(other.digest.digest()));
        let mut found = prepare(Verifier::new(self.content.as_ref())).these(subjects).await;
        // What was listed may be collected before it is looked at.
        found.problems.retain(|problem| {
            !matches!(problem.fault, longshore_content::Fault::Missing) || needed.contains(&problem.subject.digest)
        });
        let bad = found.problems.len() as u64;
        let metrics = &self.senses.metrics;
        metrics.verified(found.blobs.saturating_sub(bad), bad, found.bytes);
        Ok(found)
    }

    /// Fetches again what [`verify_content`](Self::verify_content) found, from the repositories of the images that need it. What no image needs can't be
    /// fetched, and is told as failed; removing it is the caller's to decide.
    ///
    /// # Errors
    /// When records can't be read. What could not be repaired is in the answer.
    pub async fn repair_content(&self, problems: Vec<Problem>) -> Result<Repair> {
        let source = Registries {
            fetcher: self.fetcher.as_ref(),
            needed: self.needed().await?,
        };
        let done = repair(self.content().as_ref(), problems, &source).await;
        let (repaired, failed) = (done.repaired.len() as u64, done.failed.len() as u64);
        self.senses.metrics.repaired(repaired, failed);
        Ok(done)
    }

    /// What the images of all namespaces consist of, as far as their manifests can be read.
    async fn needed(&self) -> Result<HashMap<Digest, Need>> {
        let mut needed = HashMap::new();
        for namespace in self.metadata.namespaces().await.at("listing namespaces")? {
            for record in self.metadata.list(&namespace, Kind::Image).await.at("listing images")? {
                for need in self.needed_by(&record).await {
                    needed.entry(need.descriptor.digest().clone()).or_insert(need);
                }
            }
        }
        Ok(needed)
    }

    async fn needed_by(&self, record: &Record) -> Vec<Need> {
        let Value::Image(image) = &record.value else {
            return Vec::new();
        };
        let mut descriptors = vec![image.target.clone()];
        // An image of one platform has its manifest behind an index, whose other manifests are not here.
        if let Some(chosen) = record.labels.get(MANIFEST_LABEL)
            && chosen != image.target.digest().as_ref()
            && let Some(index) = self.readable::<ImageIndex>(image.target.digest()).await
        {
            let manifests = index.manifests().iter();
            descriptors.extend(manifests.filter(|one| one.digest().as_ref() == chosen).cloned());
        }
        if let Some(manifest) = descriptors.last()
            && let Some(manifest) = self.readable::<ImageManifest>(manifest.digest()).await
        {
            descriptors.push(manifest.config().clone());
            let elsewhere = match self.readable::<ImageConfiguration>(manifest.config().digest()).await {
                Some(config) => self.with_the_snapshotter(manifest.layers(), &config).await,
                None => HashSet::new(),
            };
            let layers = manifest.layers().iter();
            descriptors.extend(layers.filter(|layer| !elsewhere.contains(layer.digest())).cloned());
        }
        let repository = parse_reference(&record.key.id).ok();
        let need = |descriptor| Need {
            descriptor,
            repository: repository.clone(),
        };
        descriptors.into_iter().map(need).collect()
    }

    async fn readable<T: serde::de::DeserializeOwned>(&self, digest: &Digest) -> Option<T> {
        let bytes = self.content.read(digest, DOCUMENT_LIMIT).await.ok()?;
        serde_json::from_slice(&bytes).ok()
    }
}

/// A blob that an image needs, and where the image came from.
#[derive(Debug)]
struct Need {
    descriptor: Descriptor,
    repository: Option<Reference>,
}

impl Need {
    fn subject(&self) -> Subject {
        Subject::from(&self.descriptor)
    }
}

/// The repositories of the images, as a source of their blobs.
#[derive(Debug)]
struct Registries<'a> {
    fetcher: &'a dyn Fetcher,
    needed: HashMap<Digest, Need>,
}

#[async_trait]
impl BlobSource for Registries<'_> {
    async fn supply(&self, subject: &Subject, offset: u64) -> longshore_content::Result<Supply> {
        let not_found = || longshore_content::Error::NotFound(subject.digest.clone());
        let need = self.needed.get(&subject.digest).ok_or_else(not_found)?;
        let repository = need.repository.as_ref().ok_or_else(not_found)?;
        let backend = |error| longshore_content::Error::Backend(Box::new(error));
        let fetched = self.fetcher.fetch(repository, &need.descriptor, offset).await;
        let fetched = fetched.map_err(backend)?;
        Ok(Supply {
            offset: fetched.offset,
            bytes: fetched.stream.map_err(backend).boxed(),
        })
    }
}
