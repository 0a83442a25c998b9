//! Tests the matcher against knockd's recorded behaviour, against simple models of its rules, and
//! under floods.

mod advice;
mod allocations;
mod cases;
mod expiry;
mod flood;
mod golden;
mod promises;
mod scans;
mod script;
mod strict;
mod strict_model;
mod tolerant;
mod tolerant_model;
mod tripwire;
mod whole;
