//! Compiles the protos of `proto/` into clients and servers, without a protoc on the machine.

use std::error::Error;

const FILES: [&str; 7] = [
    "etcd/kv.proto",
    "etcd/rpc.proto",
    "quorate/log.proto",
    "quorate/peer.proto",
    "quorate/admin.proto",
    "quorate/snapshot.proto",
    "quorate/copy.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let descriptors = protox::compile(FILES, ["proto"])?;
    tonic_prost_build::configure()
        // Keys, values and commands are shared with the buffer that they came in, not copied.
        .bytes(".")
        .codec_path("crate::codec::Codec")
        .compile_fds(descriptors)?;
    Ok(())
}
