//! Whether a request is valid by itself, whatever the state. Pure functions; what depends on the state is checked when the
//! request is applied.

use quorate_api::etcdserverpb as pb;
use quorate_api::etcdserverpb::range_request::{SortOrder, SortTarget};
use quorate_api::etcdserverpb::request_op::Request;

use super::overlap;

/// Compares, and operations of each branch, that a transaction may have; nested ones share what the outer ones leave.
pub const MAX_TXN_OPERATIONS: usize = 128;

/// Compares, and operations, of a transaction with all that are nested in it, in every branch. The limit above does not bound them: the
/// nested transactions of one branch do not share what is left among one another, so that 128 grow to 77,658. Four times the limit of a
/// branch: no client is known to need that many, and what is applied for one request stays within some hundred operations.
pub const MAX_TXN_OPERATIONS_IN_ALL: usize = 4 * MAX_TXN_OPERATIONS;

/// Transactions within transactions. The encoding of the log must be able to nest deeper than that of requests: decoders
/// stop at 100 messages, and each level takes two.
pub const MAX_TXN_DEPTH: usize = 32;

/// Bytes of an encoded request.
pub const MAX_REQUEST_BYTES: usize = 1536 * 1024;

/// Why a request is refused before it gets to the state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// No key.
    #[error("the key is missing")]
    EmptyKey,
    /// A put that is to keep its value brings one.
    #[error("a value comes with ignore_value")]
    ValueProvided,
    /// A put that is to keep its lease brings one.
    #[error("a lease comes with ignore_lease")]
    LeaseProvided,
    /// An order or a target of sorting that is unknown.
    #[error("the sort order or target is unknown")]
    SortOption,
    /// An operation of a transaction without a request in it.
    #[error("an operation of the transaction is empty")]
    EmptyOperation,
    /// More in a transaction than [`MAX_TXN_OPERATIONS`] or [`MAX_TXN_OPERATIONS_IN_ALL`], or deeper than [`MAX_TXN_DEPTH`].
    #[error("the transaction has too many operations")]
    TooManyOperations,
    /// A transaction would change a key twice.
    #[error("the transaction changes a key twice")]
    DuplicateKey,
    /// More than [`MAX_REQUEST_BYTES`].
    #[error("the request is too large")]
    TooLarge,
}

/// Checks a Range.
pub fn range(request: &pb::RangeRequest) -> Result<(), Invalid> {
    key(&request.key)?;
    SortOrder::try_from(request.sort_order).map_err(|_| Invalid::SortOption)?;
    SortTarget::try_from(request.sort_target).map_err(|_| Invalid::SortOption)?;
    Ok(())
}

/// Checks a Put.
pub fn put(request: &pb::PutRequest) -> Result<(), Invalid> {
    key(&request.key)?;
    if request.ignore_value && !request.value.is_empty() {
        return Err(Invalid::ValueProvided);
    }
    if request.ignore_lease && request.lease != 0 {
        return Err(Invalid::LeaseProvided);
    }
    Ok(())
}

/// Checks a `DeleteRange`.
pub fn delete_range(request: &pb::DeleteRangeRequest) -> Result<(), Invalid> {
    key(&request.key)
}

/// Checks a Txn, with everything in it.
pub fn txn(request: &pb::TxnRequest) -> Result<(), Invalid> {
    let mut left = Left { compares: MAX_TXN_OPERATIONS_IN_ALL, operations: MAX_TXN_OPERATIONS_IN_ALL };
    txn_within(request, MAX_TXN_OPERATIONS, MAX_TXN_DEPTH, &mut left)?;
    // After the number of operations, which bounds the work.
    overlap::check(request)
}

/// Checks the length of an encoded request, in bytes.
pub fn size(bytes: usize) -> Result<(), Invalid> {
    if bytes > MAX_REQUEST_BYTES { Err(Invalid::TooLarge) } else { Ok(()) }
}

/// Whether a transaction only reads. A nested one counts as writing.
pub fn reads_only(request: &pb::TxnRequest) -> bool {
    operations(request).all(|operation| matches!(operation.request, Some(Request::RequestRange(_))))
}

/// Whether a transaction only reads, and is content with what this member knows.
pub fn is_serializable(request: &pb::TxnRequest) -> bool {
    operations(request).next().is_some()
        && operations(request).all(|operation| match &operation.request {
            Some(Request::RequestRange(range)) => range.serializable,
            _ => false,
        })
}

fn operations(request: &pb::TxnRequest) -> impl Iterator<Item = &pb::RequestOp> {
    request.success.iter().chain(&request.failure)
}

fn key(key: &[u8]) -> Result<(), Invalid> {
    if key.is_empty() { Err(Invalid::EmptyKey) } else { Ok(()) }
}

/// What a transaction may still have, all nested ones together.
#[derive(Debug)]
struct Left {
    compares: usize,
    operations: usize,
}

impl Left {
    fn take(&mut self, request: &pb::TxnRequest) -> Result<(), Invalid> {
        let less = |left: usize, taken| left.checked_sub(taken).ok_or(Invalid::TooManyOperations);
        self.compares = less(self.compares, request.compare.len())?;
        self.operations = less(self.operations, request.success.len() + request.failure.len())?;
        Ok(())
    }
}

fn txn_within(
    request: &pb::TxnRequest,
    allowed: usize,
    depth: usize,
    in_all: &mut Left,
) -> Result<(), Invalid> {
    let most = request.compare.len().max(request.success.len()).max(request.failure.len());
    let left = allowed.checked_sub(most).ok_or(Invalid::TooManyOperations)?;
    let depth = depth.checked_sub(1).ok_or(Invalid::TooManyOperations)?;
    in_all.take(request)?;
    for compare in &request.compare {
        key(&compare.key)?;
    }
    operations(request).try_for_each(|operation| match &operation.request {
        Some(Request::RequestRange(request)) => range(request),
        Some(Request::RequestPut(request)) => put(request),
        Some(Request::RequestDeleteRange(request)) => delete_range(request),
        Some(Request::RequestTxn(request)) => txn_within(request, left, depth, in_all),
        None => Err(Invalid::EmptyOperation),
    })
}
