//! The kernel's randomness for crates that use `getrandom` 0.3 or 0.4, which know no source on this target.
//!
//! They call one symbol when they are compiled with `--cfg getrandom_backend="custom"`. The feature `getrandom` of this crate
//! provides it, and with it the import of `random`, whether it is used or not: that is why it is a feature.

use getrandom::Error;

use crate::context::random_bytes;

/// Both versions declare it like this; its error is a number in both.
#[allow(
    unsafe_code,
    reason = "the symbol and its signature are how getrandom finds a source it does not know"
)]
#[unsafe(no_mangle)]
unsafe extern "Rust" fn __getrandom_v03_custom(destination: *mut u8, length: usize) -> Result<(), Error> {
    let bytes = &random_bytes(length)[..length];
    // SAFETY: the caller hands over `length` bytes to be written, and that many are there to be read.
    unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), destination, length) };
    Ok(())
}
