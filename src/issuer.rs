//! Who issues certificates.

pub mod acme;
pub mod internal;
mod proving;

pub use internal::InternalCa;
pub use proving::proof_certificate;
