//! Values as text.
#![forbid(unsafe_code)]

use std::fmt::Display;

/// Formats the value. (`to_string` would generate code for each type.)
pub fn shown(value: &dyn Display) -> String {
    value.to_string()
}
