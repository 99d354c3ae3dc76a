//! Asks a component to describe itself, when a bundle is made.
//!
//! `describe` runs as any guest does, with fuel and memory limits, but with nothing to call: a component that calls the kernel from
//! it traps.

use wasmtime::component::{Component, Linker};
use wasmtime::{Engine, Store, StoreLimits, StoreLimitsBuilder};

use super::host::bindings::Capsule as Exports;

/// Fuel of one description: schemas of a few hundred types.
const FUEL: u64 = 2_000_000_000;

/// Memory of one description, in bytes.
const MEMORY_BYTES_MAX: usize = 64 << 20;

/// Why there is no description.
#[derive(Debug, thiserror::Error)]
pub enum DescribeError {
    /// It could not be compiled, instantiated or run.
    #[error("the component cannot be asked to describe itself: {0:#}")]
    Run(wasmtime::Error),
    /// What it said is no description.
    #[error("the component's description is not valid")]
    Invalid(#[from] serde_json::Error),
}

/// Compiles the component, calls its `describe`, and checks what it says. Returns the JSON as it was said. For what makes
/// bundles: it compiles in this process.
///
/// # Errors
/// [`DescribeError`].
pub async fn describe(engine: &Engine, component: &[u8]) -> Result<String, DescribeError> {
    let run = async {
        let component = Component::new(engine, component)?;
        let mut linker: Linker<StoreLimits> = Linker::new(engine);
        linker.define_unknown_imports_as_traps(&component)?;
        let limits = StoreLimitsBuilder::new()
            .memory_size(MEMORY_BYTES_MAX)
            .instances(32)
            .build();
        let mut store = Store::new(engine, limits);
        store.limiter(|limits| limits);
        store.set_fuel(FUEL)?;
        // Nobody advances this engine's epoch; fuel is the limit.
        store.set_epoch_deadline(u64::MAX / 2);
        let exports = Exports::instantiate_async(&mut store, &component, &linker).await?;
        exports.call_describe(&mut store).await
    };
    let said = run.await.map_err(DescribeError::Run)?;
    serde_json::from_str::<astrid_wire::describe::Description>(&said)?;
    Ok(said)
}
