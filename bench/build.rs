//! Compiles the protocols that the bench speaks, without a system `protoc`.

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    let protocols = [
        "../proto/flotilla/v1/flotilla.proto",
        "../proto/kubemq/kubemq.proto",
        "proto/flotilla/bench/echo.proto",
    ];
    for protocol in protocols {
        println!("cargo:rerun-if-changed={protocol}");
    }
    let descriptors = protox::compile(protocols, ["../proto", "proto"])?;
    tonic_prost_build::configure()
        // Bodies are slices of what was read from the socket.
        .bytes(".")
        // The echo's is served too.
        .build_server(true)
        .emit_rerun_if_changed(false)
        .compile_fds(descriptors)?;
    Ok(())
}
