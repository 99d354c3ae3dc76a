//! stub
use crate::bus::inbox::Credit;
use crate::metrics::Metrics;
use bytes::Bytes;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
#[allow(missing_docs)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Period {
    Hour,
    Day,
}
#[allow(missing_docs)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Rotation {
    pub bytes_max: u64,
    pub keep: u32,
    pub every: Option<Period>,
    pub compress: bool,
}
#[allow(missing_docs)]
#[derive(Debug)]
pub struct FileSink {
    pub path: PathBuf,
    pub rotation: Rotation,
}
#[allow(missing_docs)]
pub trait Told: Send {
    fn output(&self, bytes: Bytes, credit: Box<dyn Credit>);
    fn ended(&self);
}
#[allow(missing_docs)]
pub struct Sink {
    pub file: Option<FileSink>,
    pub messages: Option<Box<dyn Told>>,
    pub secrets: Arc<[Vec<u8>]>,
}
#[allow(missing_docs)]
#[derive(Debug)]
pub struct SinkHandle;
#[allow(missing_docs)]
impl SinkHandle {
    pub async fn settle(&self) {}
}
#[allow(missing_docs)]
#[derive(Debug)]
pub struct Sinks;
#[allow(missing_docs)]
impl Sinks {
    pub fn new(_: Arc<Metrics>) -> Self {
        Self
    }
    pub fn attach(&self, _: OwnedFd, _: Sink) -> SinkHandle {
        SinkHandle
    }
}
#[allow(missing_docs)]
pub fn tail(_: &std::path::Path, _: usize, _: usize) -> std::io::Result<Vec<u8>> {
    Ok(Vec::new())
}
