//! `astrid:kernel/fs`: files. Nothing can be opened yet: every call says so.

use wasmtime::component::Resource;

use super::bindings::astrid::kernel::fs::{
    Dir, Entry, Expected, File, FsError, Host, HostDir, HostFile, Meta, OpenOptions,
};
use crate::capsule::guest::Guest;

fn none<T>() -> Result<T, FsError> {
    Err(FsError::Unsupported("this daemon serves no files".to_owned()))
}

impl HostFile for Guest {
    fn read(&mut self, _: Resource<File>, _: u64, _: u32) -> Result<Vec<u8>, FsError> {
        none()
    }

    fn write(&mut self, _: Resource<File>, _: u64, _: Vec<u8>) -> Result<(), FsError> {
        none()
    }

    fn stat(&mut self, _: Resource<File>) -> Result<Meta, FsError> {
        none()
    }

    fn set_length(&mut self, _: Resource<File>, _: u64) -> Result<(), FsError> {
        none()
    }

    fn sync(&mut self, _: Resource<File>) -> Result<(), FsError> {
        none()
    }

    fn drop(&mut self, _: Resource<File>) -> wasmtime::Result<()> {
        Ok(())
    }
}

impl HostDir for Guest {
    fn next(&mut self, _: Resource<Dir>, _: u32) -> Result<Vec<Entry>, FsError> {
        none()
    }

    fn passed_over(&mut self, _: Resource<Dir>) -> u64 {
        0
    }

    fn drop(&mut self, _: Resource<Dir>) -> wasmtime::Result<()> {
        Ok(())
    }
}

impl Host for Guest {
    fn open(&mut self, _: String, _: OpenOptions) -> Result<Resource<File>, FsError> {
        none()
    }

    fn open_dir(&mut self, _: String, _: Option<String>) -> Result<Resource<Dir>, FsError> {
        none()
    }

    fn stat(&mut self, _: String, _: bool) -> Result<Meta, FsError> {
        none()
    }

    fn hash(&mut self, _: String) -> Result<String, FsError> {
        none()
    }

    fn replace(&mut self, _: String, _: Vec<u8>, _: Expected) -> Result<String, FsError> {
        none()
    }

    fn make_dir(&mut self, _: String, _: bool) -> Result<(), FsError> {
        none()
    }

    fn remove(&mut self, _: String, _: bool) -> Result<(), FsError> {
        none()
    }

    fn rename(&mut self, _: String, _: String, _: bool) -> Result<(), FsError> {
        none()
    }

    fn read_link(&mut self, _: String) -> Result<String, FsError> {
        none()
    }

    fn make_link(&mut self, _: String, _: String) -> Result<(), FsError> {
        none()
    }

    fn set_modified(&mut self, _: String, _: i64) -> Result<(), FsError> {
        none()
    }

    fn set_mode(&mut self, _: String, _: u32) -> Result<(), FsError> {
        none()
    }

    fn watch(&mut self, _: String) -> Result<u64, FsError> {
        none()
    }
}
