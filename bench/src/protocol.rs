//! The generated protocols.

#[allow(clippy::all, missing_docs)]
pub mod flotilla {
    pub mod v1 {
        tonic::include_proto!("flotilla.v1");
    }
    pub mod bench {
        tonic::include_proto!("flotilla.bench");
    }
}

#[allow(clippy::all, missing_docs)]
pub mod kubemq {
    tonic::include_proto!("kubemq");
}
