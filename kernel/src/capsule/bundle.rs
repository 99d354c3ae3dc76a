//! stub
use std::sync::Arc;
use astrid_wire::{manifest::Manifest, describe::Description};
#[derive(Clone,Debug)] pub enum Origin { Embedded, Directory(std::path::PathBuf), Home(std::path::PathBuf) }
#[derive(Clone,Debug)] pub struct Bundle { pub manifest: Manifest, pub description: Description, pub component: Arc<[u8]>, pub origin: Origin }
