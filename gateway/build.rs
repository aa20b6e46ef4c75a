//! Compiles the protocol definitions, without a system `protoc`.

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    let proto = "../proto/kubemq/kubemq.proto";
    println!("cargo:rerun-if-changed={proto}");
    let descriptors = protox::compile([proto], ["../proto"])?;
    tonic_prost_build::configure()
        // Bodies are slices of what was read from the socket.
        .bytes(".")
        .codec_path("crate::kubemq::codec::BoundedCodec")
        // The in-process tests are clients too.
        .build_client(true)
        .emit_rerun_if_changed(false)
        .compile_fds(descriptors)?;
    Ok(())
}
