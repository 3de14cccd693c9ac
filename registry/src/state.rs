//! What the handlers share.

use std::sync::{Arc, Mutex};

use longshore_content::ContentStore;

use crate::auth::Authority;
use crate::faults::Faults;
use crate::log::Log;
use crate::repositories::Repositories;
use crate::uploads::Uploads;

#[derive(Debug)]
pub(crate) struct State {
    pub(crate) content: Arc<dyn ContentStore>,
    pub(crate) repositories: Mutex<Repositories>,
    pub(crate) uploads: Uploads,
    pub(crate) authority: Authority,
    pub(crate) faults: Option<Arc<dyn Faults>>,
    pub(crate) log: Log,
}
