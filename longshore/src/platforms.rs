//! One platform of an image, or all.

use std::sync::Arc;

use longshore_distribution::{PullOptions, PullSource, Reference, pull_everything};

use crate::error::At;
use crate::image::Holder;
use crate::load::Here;
use crate::{Engine, Image, Result};

/// Which images of an index come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Platforms {
    /// The one that is unpacked.
    One,
    /// All, of which one is unpacked.
    All,
}

impl Engine {
    /// Brings an image in from a source, unpacks what is for one platform, and registers the name.
    pub(crate) async fn bring_platforms(
        &self,
        reference: &Reference,
        source: PullSource,
        options: PullOptions,
        platforms: Platforms,
    ) -> Result<Image> {
        if platforms == Platforms::One {
            return self.bring(reference, source, options).await;
        }
        let doing = format!("pulling {reference} for all platforms");
        let holder = Arc::new(Holder::new(self, "pull").await.at(&doing)?);
        let outcome = self.bring_all(reference, source, options, &holder).await;
        holder.let_go().await;
        outcome
    }

    /// The holder keeps all until the name does.
    async fn bring_all(
        &self,
        reference: &Reference,
        source: PullSource,
        options: PullOptions,
        holder: &Arc<Holder>,
    ) -> Result<Image> {
        let everything = PullOptions {
            keeper: Some(holder.clone()),
            ..options.clone()
        };
        let target = pull_everything(source.clone(), self.content(), reference, everything).await;
        let target = target.at(format!("pulling {reference} for all platforms"))?;
        // The name may have moved meanwhile, and what came was allowed.
        let source = PullSource {
            fetcher: source.fetcher,
            ..Here::source(target, "the source")
        };
        let options = PullOptions {
            verifier: None,
            ..options
        };
        self.bring(reference, source, options).await
    }
}
