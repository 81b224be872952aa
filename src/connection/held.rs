//! Values made once for each connection and kept while their definition stays in force.

use std::sync::{Arc, PoisonError, RwLock};

use crate::base::map::Map;
use crate::definition::live::Generation;
use crate::definition::plan::Integration;

/// The most values that are kept. When there are more all are made again, which costs microseconds each.
const CAPACITY: usize = 16_384;

/// Values by integration and connection. A value belongs to the very `Arc` of the integration it was
/// made for: after a reload that changed the definition it is not found any more.
#[derive(Debug)]
pub struct PerConnection<T> {
    state: RwLock<State<T>>,
}

#[derive(Debug)]
struct State<T> {
    generation: u64,
    count: usize,
    /// Only connections that exist become keys, so no caller can choose them to collide.
    integrations: Map<Arc<str>, OfIntegration<T>>,
}

#[derive(Debug)]
struct OfIntegration<T> {
    integration: Arc<Integration>,
    values: Map<Box<str>, T>,
}

impl<T> Default for PerConnection<T> {
    fn default() -> Self {
        Self { state: RwLock::new(State { generation: 0, count: 0, integrations: Map::default() }) }
    }
}

impl<T: Clone> PerConnection<T> {
    /// The value of a connection, when it was made for this very integration.
    pub fn get(&self, integration: &Arc<Integration>, connection: &str) -> Option<T> {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        let of = state.integrations.get(&*integration.id)?;
        Arc::ptr_eq(&of.integration, integration).then(|| of.values.get(connection).cloned()).flatten()
    }

    /// Keeps a value. The first value after a reload lets go of all that the reload ended.
    pub fn keep(&self, generation: &Generation, integration: &Arc<Integration>, connection: &str, value: T) {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        if state.generation < generation.number {
            state.generation = generation.number;
            state.integrations.retain(|id, of| {
                generation.integration(id).is_some_and(|in_force| Arc::ptr_eq(in_force, &of.integration))
            });
            state.count = state.integrations.values().map(|of| of.values.len()).sum();
        }
        if state.count >= CAPACITY {
            state.integrations.clear();
            state.count = 0;
        }
        let of = state
            .integrations
            .entry(Arc::clone(&integration.id))
            .or_insert_with(|| OfIntegration { integration: Arc::clone(integration), values: Map::default() });
        let mut removed = 0;
        if !Arc::ptr_eq(&of.integration, integration) {
            removed = of.values.len();
            *of = OfIntegration { integration: Arc::clone(integration), values: Map::default() };
        }
        let added = usize::from(of.values.insert(connection.into(), value).is_none());
        state.count = state.count.saturating_sub(removed) + added;
    }

    /// Lets go of one connection's value.
    pub fn forget(&self, integration: &str, connection: &str) {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        let gone = state.integrations.get_mut(integration).and_then(|of| of.values.remove(connection));
        state.count = state.count.saturating_sub(usize::from(gone.is_some()));
    }
}
