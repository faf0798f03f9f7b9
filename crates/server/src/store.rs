//! Opens the store of a cache as configured. How routes use it is their own (`plan::CacheRules`).

use crate::plan::CachePlan;
use eleven_cache::Cache;
use eleven_cache::disk::{self, Disk, OpenError};
use eleven_cache::memory::{self, Memory};
use eleven_cache::store::Store;
use eleven_cache::tiered::Tiered;
use std::sync::Arc;

/// Opens a store. The cache that is returned follows the RFC; routes take it under their own rules.
///
/// # Errors
/// If the directory cannot be used, or another process has it.
pub fn open(plan: &CachePlan) -> Result<Arc<Cache>, OpenError> {
    let bytes_max = plan.memory_bytes_max;
    let usual = memory::Limits::default();
    let object_bytes_max = usual.object_bytes_max.min(bytes_max / 4);
    let memory = Memory::new(memory::Limits { bytes_max, object_bytes_max, ..usual });
    let store = match &plan.directory {
        None => Store::Memory(memory),
        Some((directory, bytes_max)) => {
            let usual = disk::Limits::default();
            let object_bytes_max = usual.object_bytes_max.min(bytes_max / 2);
            let limits = disk::Limits { bytes_max: *bytes_max, object_bytes_max, ..usual };
            Store::Tiered(Tiered::new(memory, Disk::open(directory, limits)?))
        }
    };
    Ok(Cache::new(Arc::new(store), eleven_cache::Config::default(), Default::default()))
}
