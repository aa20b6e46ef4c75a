//! Links the simulation so that libraries which look functions up by name find those that it answers
//! itself, and so that everything static lies at the same address in every process.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-link-arg-bins=-Wl,--export-dynamic-symbol=getrandom");
    println!("cargo:rustc-link-arg-bins=-no-pie");
}
