//! Compiles the protocol definitions, without a system `protoc`.

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    let protos = [
        "../proto/kubemq/kubemq.proto",
        "../proto/flotilla/v1/flotilla.proto",
    ];
    for proto in protos {
        println!("cargo:rerun-if-changed={proto}");
    }
    let descriptors = protox::compile(protos, ["../proto"])?;
    tonic_prost_build::configure()
        // Bodies are slices of what was read from the socket.
        .bytes(".")
        .codec_path("crate::transport::codec::BoundedCodec")
        // The in-process tests are clients too.
        .build_client(true)
        .emit_rerun_if_changed(false)
        .compile_fds(descriptors)?;
    Ok(())
}
