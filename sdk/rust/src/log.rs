//! Lines in the daemon's log.
//!
//! The message is a constant, what varies are fields, so that lines can be counted and searched. A line is written at once,
//! whatever becomes of the handler.
//!
//! ```
//! use astrid_sdk::prelude::*;
//!
//! # let problem = Problem::new("x", "y");
//! info!("greeted", name = "Ada", times = 3);
//! warn!("no answer", problem = ?problem);
//! debug!("done");
//! ```

use crate::bindings::astrid::kernel::log::Level;
use crate::sys;

/// Writes a line. The macros [`error!`](crate::error!), [`warn!`](crate::warn!), [`info!`](crate::info!),
/// [`debug!`](crate::debug!) and [`trace!`](crate::trace!) are shorter.
pub fn line(level: Level, message: &str, fields: Vec<(String, String)>) {
    sys::log::write(level, message, &fields);
}

/// Writes a line: a level, a message, and fields `name = value` (by `Display`) or `name = ?value` (by `Debug`).
#[macro_export]
macro_rules! log_line {
    (@fields [$($done:tt)*]) => { ::std::vec![$($done)*] };
    (@fields [$($done:tt)*] , ) => { ::std::vec![$($done)*] };
    (@fields [$($done:tt)*] , $name:ident = ?$value:expr $(, $($rest:tt)*)?) => {
        $crate::log_line!(@fields [$($done)* (::std::string::String::from(::std::stringify!($name)), ::std::format!("{:?}", $value)),]
            $(, $($rest)*)?)
    };
    (@fields [$($done:tt)*] , $name:ident = $value:expr $(, $($rest:tt)*)?) => {
        $crate::log_line!(@fields [$($done)* (::std::string::String::from(::std::stringify!($name)), ::std::format!("{}", $value)),]
            $(, $($rest)*)?)
    };
    ($level:ident, $message:expr $(, $($fields:tt)*)?) => {
        $crate::log::line($crate::Level::$level, $message, $crate::log_line!(@fields [] $(, $($fields)*)?))
    };
}

/// Something is broken.
#[macro_export]
macro_rules! error { ($($line:tt)*) => { $crate::log_line!(Error, $($line)*) }; }

/// Something is wrong, and it goes on.
#[macro_export]
macro_rules! warn { ($($line:tt)*) => { $crate::log_line!(Warn, $($line)*) }; }

/// Something that an operator wants to know.
#[macro_export]
macro_rules! info { ($($line:tt)*) => { $crate::log_line!(Info, $($line)*) }; }

/// Something for whoever looks for a mistake.
#[macro_export]
macro_rules! debug { ($($line:tt)*) => { $crate::log_line!(Debug, $($line)*) }; }

/// Every step.
#[macro_export]
macro_rules! trace { ($($line:tt)*) => { $crate::log_line!(Trace, $($line)*) }; }
