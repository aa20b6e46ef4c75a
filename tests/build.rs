//! Compiles the clients of the protocols under test, without a system `protoc`, and the library by which a server lives
//! by a clock of its own.

use std::error::Error;
use std::path::Path;
use std::process::Command;

const CLOCK: &str = "src/cluster/clock.c";

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
        .bytes(".")
        .build_server(false)
        .emit_rerun_if_changed(false)
        .compile_fds(descriptors)?;
    compile_clock()
}

/// With the compiler that links Rust programs.
fn compile_clock() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed={CLOCK}");
    let library = Path::new(&std::env::var("OUT_DIR")?).join("clock.so");
    let output = Command::new("cc")
        .args(["-O2", "-shared", "-fPIC", "-o"])
        .args([&library, Path::new(CLOCK)])
        .output()
        .map_err(|error| format!("a C compiler is needed for {CLOCK}: cc: {error}"))?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into());
    }
    Ok(())
}
