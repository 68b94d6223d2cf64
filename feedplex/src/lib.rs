//! feedplex
