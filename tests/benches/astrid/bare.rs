//! The limits: the same machine without Astrid.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};

use astrid_kernel::capsule::engine;
use wasmtime::component::{Component, Linker};
use wasmtime::{Engine, Store};

/// A component that takes 256 bytes, calls one host function and returns 256 bytes: what `handle` has at least.
const ECHO: &str = r#"
(component
  (import "host" (func $host (param "n" u64) (result u64)))
  (core func $host' (canon lower (func $host)))
  (core module $m
    (import "h" "host" (func $host (param i64) (result i64)))
    (memory (export "memory") 2)
    (func (export "realloc") (param i32 i32 i32 i32) (result i32) (i32.const 1024))
    (func (export "handle") (param i32 i32) (result i32)
      (drop (call $host (i64.const 1)))
      (i32.store (i32.const 16) (local.get 0))
      (i32.store (i32.const 20) (local.get 1))
      (i32.const 16)))
  (core instance $i (instantiate $m (with "h" (instance (export "host" (func $host'))))))
  (func (export "handle") (param "body" (list u8)) (result (list u8))
    (canon lift (core func $i "handle") (memory (core memory $i "memory")) (realloc (core func $i "realloc")))))
"#;

/// Nanoseconds of one asynchronous component call with one host call, metered as Astrid's are.
pub struct BareCall {
    store: Store<()>,
    handle: wasmtime::component::TypedFunc<(Vec<u8>,), (Vec<u8>,)>,
}

impl BareCall {
    pub async fn new() -> Self {
        let engine: Engine = engine::engine().unwrap();
        let component = Component::new(&engine, wat::parse_str(ECHO).unwrap()).unwrap();
        let mut linker: Linker<()> = Linker::new(&engine);
        linker.root().func_wrap("host", |_, (n,): (u64,)| Ok((n + 1,))).unwrap();
        let mut store = Store::new(&engine, ());
        store.set_fuel(u64::MAX / 2).unwrap();
        store.set_epoch_deadline(u64::MAX / 2);
        let instance = linker.instantiate_async(&mut store, &component).await.unwrap();
        let handle = instance.get_typed_func(&mut store, "handle").unwrap();
        Self { store, handle }
    }

    pub async fn call(&mut self, body: &[u8]) -> usize {
        let (answer,) = self.handle.call_async(&mut self.store, (body.to_vec(),)).await.unwrap();
        answer.len()
    }
}

/// Another process that sends back what it gets: the peer of a client's round trip.
pub struct EchoProcess {
    pub stream: UnixStream,
    child: Child,
}

/// Tells this program to be that process.
pub const ECHO_ARGUMENT: &str = "__echo";

impl EchoProcess {
    pub fn start(size: usize) -> Self {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let input = std::os::fd::OwnedFd::from(theirs.try_clone().unwrap());
        let child = Command::new(std::env::current_exe().unwrap())
            .args([ECHO_ARGUMENT, &size.to_string()])
            .stdin(Stdio::from(input))
            .stdout(Stdio::from(std::os::fd::OwnedFd::from(theirs)))
            .spawn()
            .unwrap();
        Self { stream: ours, child }
    }
}

impl Drop for EchoProcess {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// The other process.
pub fn echo(size: usize) {
    let (mut input, mut output) = (std::io::stdin().lock(), std::io::stdout().lock());
    let mut buffer = vec![0; size];
    while input.read_exact(&mut buffer).is_ok() {
        if output.write_all(&buffer).and_then(|()| output.flush()).is_err() {
            return;
        }
    }
}
