//! `astrid:kernel/kv`: the actor's own table.

use super::bindings::astrid::kernel::kv::{Host, KvError, Page};
use crate::capsule::guest::Guest;

fn none<T>() -> Result<T, KvError> {
    Err(KvError::Unavailable("this kernel has no store yet".into()))
}

impl Host for Guest {
    fn get(&mut self, _: Vec<u8>) -> Result<Option<Vec<u8>>, KvError> {
        none()
    }

    fn put(&mut self, _: Vec<u8>, _: Vec<u8>) -> Result<(), KvError> {
        none()
    }

    fn delete(&mut self, _: Vec<u8>) -> Result<(), KvError> {
        none()
    }

    fn compare_and_swap(&mut self, _: Vec<u8>, _: Option<Vec<u8>>, _: Option<Vec<u8>>) -> Result<bool, KvError> {
        none()
    }

    fn scan(&mut self, _: Vec<u8>, _: Option<Vec<u8>>, _: u32, _: bool) -> Result<Page, KvError> {
        none()
    }
}
