//! Protobufs of Quorate, with their clients and servers: the etcd v3 API, and the peer and admin services.
//!
//! The wire is described in `proto/`; everything here is generated from it.

// Generated code keeps the generator's style.
#![allow(missing_docs, unreachable_pub, unused_qualifications, clippy::pedantic)]

pub mod codec;

/// etcd's key-value messages.
pub mod mvccpb {
    tonic::include_proto!("mvccpb");
}

/// etcd's services and their messages.
pub mod etcdserverpb {
    tonic::include_proto!("etcdserverpb");
}

/// The packages as the generated code refers to one another.
mod quorate {
    pub mod log {
        pub mod v1 {
            tonic::include_proto!("quorate.log.v1");
        }
    }
    pub mod peer {
        pub mod v1 {
            tonic::include_proto!("quorate.peer.v1");
        }
    }
    pub mod snapshot {
        pub mod v1 {
            tonic::include_proto!("quorate.snapshot.v1");
        }
    }
    pub mod copy {
        pub mod v1 {
            tonic::include_proto!("quorate.copy.v1");
        }
    }
    pub mod admin {
        pub mod v1 {
            tonic::include_proto!("quorate.admin.v1");
        }
    }
}

/// What operators ask of a node.
pub use quorate::admin::v1 as admin;
/// What a member's own copy of its state is.
pub use quorate::copy::v1 as copy;
/// What the replicated log holds.
pub use quorate::log::v1 as log;
/// What members say to one another.
pub use quorate::peer::v1 as peer;
/// What a snapshot holds.
pub use quorate::snapshot::v1 as snapshot;
