//! Who issues certificates.

pub mod internal;

pub use internal::InternalCa;
