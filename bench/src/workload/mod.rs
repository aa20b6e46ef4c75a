//! What is asked of the systems under test: one module for each kind of workload.
