//! Values as text.
#![forbid(unsafe_code)]

use std::fmt::Display;

/// The value as text. (`to_string` would be in the program once for each type.)
pub fn shown(value: &dyn Display) -> String {
    value.to_string()
}
