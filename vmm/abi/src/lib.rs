//! What a guest and Baton share: the hint page and the doorbells ([`hints`]), the protocol of the test
//! device ([`testdev`]), and the buckets of its histogram of waits ([`wait_buckets`]).
//!
//! A guest is built without `std`, and so is this crate.

#![no_std]

pub mod hints;
pub mod testdev;
pub mod wait_buckets;
