//! A deployment's store and keys without its doors: for commands on a stopped gateway.

use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;

use super::{Options, Seams, StartError, doors, first_generation, secret_store, state};
use crate::connection::keys::open_keys;
use crate::connection::{KeyPlace, Keys};
use crate::definition::live::Generation;
use crate::definition::load::environment::Environment;
use crate::store::embedded::Embedded;

/// What a command on a stopped gateway works with.
#[derive(Debug)]
pub struct Offline {
    /// What the files say.
    pub generation: Arc<Generation>,
    /// The store.
    pub store: Arc<Embedded>,
    keys: Option<Keys>,
}

impl Offline {
    /// The master keys.
    ///
    /// # Errors
    /// When the settings name none.
    pub fn keys(&self) -> anyhow::Result<&Keys> {
        self.keys.as_ref().context("this deployment has no master key: name one under `secrets.key`")
    }
}

/// Opens the store of the deployment whose gateway file this is, does the work, and closes the store.
///
/// # Errors
/// When the deployment is faulty, its store is in use, its keys do not fit, or the work fails.
pub fn run<T, F>(gateway: PathBuf, work: F) -> anyhow::Result<T>
where
    F: AsyncFnOnce(&Offline) -> anyhow::Result<T>,
{
    let seams = Seams::of_system()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let mut options = Options { gateway, development: false, mock: None, seams };
    let secrets = secret_store(&options)?;
    if let Some(secrets) = &secrets {
        options.seams.environment = Arc::clone(secrets) as Arc<dyn Environment>;
    }
    runtime.block_on(async {
        let (_, live) = first_generation(&options).await?;
        let generation = live.load();
        let store = state::open(&generation.gateway, &options.seams).await?;
        let wrap = doors::wrap(&generation.gateway, secrets.as_ref());
        let opened = match opened(&options.seams, &generation, &store, wrap).await {
            Ok(keys) => state::begin(&store).await.map(|()| keys),
            refused => refused,
        };
        let done = match opened {
            Ok(keys) => {
                let offline = Offline { generation, store: Arc::clone(&store), keys };
                work(&offline).await
            }
            Err(error) => Err(error.into()),
        };
        store.close().await;
        done
    })
}

fn opened<'a>(
    seams: &'a Seams,
    generation: &'a Generation,
    store: &'a Arc<Embedded>,
    wrap: Option<Arc<dyn crate::connection::Wrap>>,
) -> impl Future<Output = Result<Option<Keys>, StartError>> + 'a {
    let fixed = &generation.gateway.fixed;
    let environment = Arc::clone(&seams.environment);
    let place = KeyPlace {
        source: fixed.key.clone(),
        previous: fixed.previous.clone(),
        mode: fixed.mode,
        environment: Arc::new(move |name: &str| environment.variable(name).ok()),
        random: Arc::clone(&seams.random),
        wrap,
        records: Arc::clone(store) as _,
    };
    async move { Ok(open_keys(place, Arc::clone(store) as _, Arc::clone(&seams.clock)).await?) }
}
