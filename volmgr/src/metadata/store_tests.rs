//! Tests of commits.
