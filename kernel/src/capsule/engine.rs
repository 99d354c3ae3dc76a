//! The one engine configuration: what a guest may use of WebAssembly, how it is metered, and how its memory is laid
//! out.
//!
//! Everything that would make two runs differ is off: threads, relaxed SIMD, NaN payloads, concurrent (async)
//! components. Fuel counts what a guest did, epochs take the thread from it; both are compiled into the code.
//!
//! A linear memory reserves 4 GiB of address space (nothing of it is committed), so that compiled code needs no bounds
//! checks; thousands of them fit the 128 TiB of a process. What is scarce is the number of memory maps
//! (`vm.max_map_count`, 65,530 by default): an instance from the on-demand allocator takes about six, its stack included,
//! which the test below holds.
//!
//! Deliberately absent: a pooling allocator (the on-demand one meets the budget), a compile cache of the engine's own
//! ([`super::aot`] is ours, because compiled code is only trusted with proof), and epoch ticking (the shard's).

use std::num::NonZeroUsize;

use wasmtime::{Config, Engine, OptLevel, WasmBacktraceDetails, WasmFeatures};

/// Address space that one linear memory reserves, in bytes: all a 32-bit guest can address, so no bounds checks are
/// compiled.
const MEMORY_RESERVATION_BYTES: u64 = 4 << 30;

/// Unmapped bytes after (and before) a linear memory: constant offsets below this need no check either.
const MEMORY_GUARD_BYTES: u64 = 32 << 20;

/// Native stack that guest code may use, in bytes; deeper recursion traps.
pub const GUEST_STACK_BYTES_MAX: usize = 512 << 10;

/// Native stack of a fiber, in bytes: the guest's part and as much for host functions. Address space; pages are
/// committed when touched.
const FIBER_STACK_BYTES: usize = 2 * GUEST_STACK_BYTES_MAX;

/// Frames named in a trap's error: enough to find the place, and cheap (frame pointers are walked, nothing is
/// symbolised).
const TRAP_FRAMES_MAX: NonZeroUsize = NonZeroUsize::MIN.saturating_add(15);

/// Proposals that no guest may use, whatever the engine's defaults become.
const REFUSED_FEATURES: WasmFeatures = WasmFeatures::THREADS
    .union(WasmFeatures::SHARED_EVERYTHING_THREADS)
    .union(WasmFeatures::RELAXED_SIMD)
    .union(WasmFeatures::STACK_SWITCHING)
    .union(WasmFeatures::MEMORY64)
    .union(WasmFeatures::CUSTOM_PAGE_SIZES)
    .union(WasmFeatures::CM_ASYNC)
    .union(WasmFeatures::CM_ASYNC_STACKFUL)
    .union(WasmFeatures::CM_MORE_ASYNC_BUILTINS)
    .union(WasmFeatures::CM_THREADING)
    .union(WasmFeatures::CM_ERROR_CONTEXT);

/// The configuration that every engine of this program starts from. Code compiled under it loads under it.
pub(super) fn config() -> Config {
    let mut config = Config::new();
    config
        .wasm_features(REFUSED_FEATURES, false)
        .wasm_component_model(true)
        // A NaN's payload is the one result of wasm arithmetic that the standard leaves open.
        .cranelift_nan_canonicalization(true)
        .cranelift_opt_level(OptLevel::Speed)
        .consume_fuel(true)
        .epoch_interruption(true)
        .memory_reservation(MEMORY_RESERVATION_BYTES)
        .memory_guard_size(MEMORY_GUARD_BYTES)
        .guard_before_linear_memory(true)
        .max_wasm_stack(GUEST_STACK_BYTES_MAX)
        .async_stack_size(FIBER_STACK_BYTES)
        .wasm_backtrace_max_frames(Some(TRAP_FRAMES_MAX))
        // Said, because the default reads the environment, and would make code of one shell unloadable in another.
        .wasm_backtrace_details(WasmBacktraceDetails::Disable)
        // Only foreign unwinders read these tables; they would be a quarter of a compiled file.
        .native_unwind_info(false)
        .generate_address_map(false)
        // Guests have no concurrent functions, and without them a call is a plain fiber: faster, and a yield reaches the shard.
        .concurrency_support(false)
        // In the compiler child; the daemon compiles nothing.
        .parallel_compilation(true);
    config
}

/// The engine of the daemon and of the compiler child: for this machine's processor.
///
/// # Errors
///
/// When the engine does not support this machine.
pub fn engine() -> wasmtime::Result<Engine> {
    Engine::new(&config())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests")]

    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use wasmtime::component::{Component, Linker};
    use wasmtime::{Store, Trap};

    use super::*;

    /// Compiles text, and calls its export `f` with that much fuel.
    fn run(text: &str, fuel: u64) -> wasmtime::Result<()> {
        let engine = engine()?;
        let component = Component::new(&engine, wat::parse_str(text).unwrap())?;
        let mut store = Store::new(&engine, ());
        store.set_fuel(fuel)?;
        store.set_epoch_deadline(1);
        let linker = Linker::new(&engine);
        let instance = ready(linker.instantiate_async(&mut store, &component))?;
        let f = instance.get_typed_func::<(), ()>(&mut store, "f")?;
        ready(f.call_async(&mut store, ()))
    }

    /// The result of a future that does not wait for anything.
    fn ready<T>(future: impl Future<Output = T>) -> T {
        match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(value) => value,
            Poll::Pending => panic!("it waits"),
        }
    }

    fn component_calling(body: &str) -> String {
        format!(
            r#"(component
                 (core module $m (memory 1) {body})
                 (core instance $i (instantiate $m))
                 (func (export "f") (canon lift (core func $i "f"))))"#
        )
    }

    #[test]
    fn a_guest_runs_and_an_endless_one_runs_out_of_fuel() {
        run(&component_calling(r#"(func (export "f"))"#), 1_000).unwrap();
        let error = run(&component_calling(r#"(func (export "f") (loop (br 0)))"#), 100_000).unwrap_err();
        assert_eq!(error.downcast_ref::<Trap>(), Some(&Trap::OutOfFuel));
    }

    #[test]
    fn deep_recursion_traps() {
        let error = run(&component_calling(r#"(func $f (export "f") (call $f))"#), u64::MAX).unwrap_err();
        assert_eq!(error.downcast_ref::<Trap>(), Some(&Trap::StackOverflow));
    }

    #[test]
    fn what_would_make_runs_differ_is_refused() {
        for module in [
            r#"(memory $s 1 1 shared) (func (export "f"))"#,
            r#"(func (export "f") (drop (i8x16.relaxed_swizzle (v128.const i64x2 0 0) (v128.const i64x2 0 0))))"#,
            r#"(memory $l i64 1) (func (export "f"))"#,
        ] {
            let error = format!("{:#}", run(&component_calling(module), 1_000).unwrap_err());
            assert!(error.contains("enabled"), "{error}");
        }
    }

    #[test]
    fn nan_payloads_are_canonical() {
        // A NaN with a payload goes through an addition; only the canonical one comes out.
        run(
            &component_calling(
                r#"(func (export "f")
                     (if (i32.ne (i32.reinterpret_f32 (f32.add (f32.reinterpret_i32 (i32.const 0x7fc12345)) (f32.const 1)))
                                 (i32.const 0x7fc00000))
                       (then unreachable)))"#,
            ),
            1_000,
        )
        .unwrap();
    }

    /// Whether this process runs a test alone: others would count. Otherwise has that done, in a process of its own.
    fn is_alone(test: &str) -> bool {
        const ALONE: &str = "ASTRID_TEST_ALONE";
        if std::env::var_os(ALONE).is_some() {
            return true;
        }
        let mut inner = std::process::Command::new(std::env::current_exe().unwrap());
        let inner = inner
            .args(["--exact", "--nocapture", test])
            .env(ALONE, "1")
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&inner.stdout).into_owned() + &String::from_utf8_lossy(&inner.stderr);
        assert!(inner.status.success() && said.contains("1 passed"), "{said}");
        false
    }

    #[test]
    fn an_instance_takes_few_memory_maps() {
        if !is_alone("capsule::engine::tests::an_instance_takes_few_memory_maps") {
            return;
        }
        let maps = || std::fs::read_to_string("/proc/self/maps").unwrap().lines().count();
        let engine = engine().unwrap();
        let text = component_calling(r#"(data (i32.const 0) "x") (func (export "f"))"#);
        let component = Component::new(&engine, wat::parse_str(text).unwrap()).unwrap();
        let linker = Linker::new(&engine);
        let live = |_| {
            let mut store = Store::new(&engine, ());
            store.set_fuel(1_000).unwrap();
            store.set_epoch_deadline(1);
            let instance = ready(linker.instantiate_async(&mut store, &component)).unwrap();
            let f = instance.get_typed_func::<(), ()>(&mut store, "f").unwrap();
            ready(f.call_async(&mut store, ())).unwrap();
            store
        };
        let before = maps();
        let stores: Vec<_> = (0..200).map(live).collect();
        let each = (maps() - before) as f64 / stores.len() as f64;
        // 4,000 live actors and room for everything else within 65,530.
        assert!(each <= 7.0, "{each} maps an instance");
    }
}
