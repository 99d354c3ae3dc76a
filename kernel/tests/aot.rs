//! The whole way of compiled code, with real compiler children: this program is one when it is started as the daemon
//! would start itself. So it has no test harness, which would write to the child's standard output.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "tests"
)]

use std::process::ExitCode;

use astrid_kernel::capsule::aot::child::COMPILE_ARGUMENT;
use astrid_kernel::capsule::aot::{Aot, CompileError, Compiler, Source, compile_child};
use astrid_kernel::capsule::bundle::{Bundle, Origin, assemble};
use astrid_kernel::capsule::engine::engine;
use astrid_kernel::home::Home;
use astrid_kernel::keys::RuntimeKey;

fn main() -> ExitCode {
    if std::env::args().nth(1).as_deref() == Some(COMPILE_ARGUMENT) {
        return match compile_child(&mut std::io::stdin().lock(), &mut std::io::stdout().lock()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("{error}");
                ExitCode::FAILURE
            }
        };
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        compiled_once_then_cached().await;
        a_damaged_cache_is_made_again().await;
        an_invalid_component_is_refused().await;
    });
    ExitCode::SUCCESS
}

struct Place {
    directory: tempfile::TempDir,
    home: Home,
    key: RuntimeKey,
}

fn place() -> Place {
    let directory = tempfile::tempdir().unwrap();
    let home = Home::resolve(Some(&directory.path().join("h"))).unwrap();
    home.create().unwrap();
    let key = RuntimeKey::open(&home).unwrap();
    Place { directory, home, key }
}

impl Place {
    fn aot(&self) -> Aot {
        Aot::open(engine().unwrap(), &self.home, &self.key, Compiler::this_program())
    }

    fn cached(&self) -> Vec<std::path::PathBuf> {
        let entries = std::fs::read_dir(self.home.cache_dir().join("aot")).unwrap();
        entries.map(|entry| entry.unwrap().path()).collect()
    }
}

fn bundle(body: &str) -> Bundle {
    let text = format!(
        r#"(component
             (core module $m (func (export "f") {body}))
             (core instance $i (instantiate $m))
             (func (export "handle") (canon lift (core func $i "f")))
             (func (export "describe") (canon lift (core func $i "f"))))"#
    );
    let manifest = "[package]\nname = \"a\"\nversion = \"1.0.0\"\ndescription = \"d\"\nkernel = \"*\"\n";
    let bytes = assemble(&wat::parse_str(text).unwrap(), manifest, "{\"topics\": []}").unwrap();
    Bundle::parse(bytes.into(), Origin::Embedded).unwrap()
}

/// Drops a place's running writes: they are on this runtime's blocking threads.
async fn cache_written(place: &Place) {
    while place
        .cached()
        .iter()
        .all(|path| path.extension().is_none_or(|extension| extension != "code"))
    {
        tokio::task::yield_now().await;
    }
}

async fn compiled_once_then_cached() {
    let place = place();
    let (aot, bundle) = (place.aot(), bundle("nop"));
    // Three at once get what one compilation made: the same code, at the same place.
    let (a, b, c) = tokio::join!(aot.load(&bundle), aot.load(&bundle), aot.load(&bundle));
    let loaded: Vec<_> = [a, b, c].into_iter().map(|loaded| loaded.ok().unwrap()).collect();
    assert!(loaded.iter().all(|loaded| loaded.source == Source::Compiled));
    assert!(
        loaded
            .iter()
            .all(|other| other.component.image_range() == loaded[0].component.image_range())
    );
    cache_written(&place).await;
    assert_eq!(aot.load(&bundle).await.ok().unwrap().source, Source::Cache);
    assert_eq!(place.aot().load(&bundle).await.ok().unwrap().source, Source::Cache);
    drop(place.directory);
}

async fn a_damaged_cache_is_made_again() {
    let place = place();
    let bundle = bundle("nop nop");
    place.aot().load(&bundle).await.ok().unwrap();
    cache_written(&place).await;
    let path = place.cached().pop().unwrap();
    let good = std::fs::read(&path).unwrap();
    std::fs::write(&path, &good[..good.len() / 2]).unwrap();
    assert_eq!(place.aot().load(&bundle).await.ok().unwrap().source, Source::Compiled);
    while std::fs::read(&path).unwrap() != good {
        tokio::task::yield_now().await;
    }
    // A cache that cannot be written: slower, and nothing else.
    std::fs::remove_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path.parent().unwrap(), "").unwrap();
    assert_eq!(place.aot().load(&bundle).await.ok().unwrap().source, Source::Compiled);
}

async fn an_invalid_component_is_refused() {
    // Its outline is right; its code takes from an empty stack.
    let error = place().aot().load(&bundle("drop")).await.err().unwrap();
    assert!(
        matches!(&error, CompileError::Refused(why) if why.starts_with("failed to compile")),
        "{error}"
    );
}
