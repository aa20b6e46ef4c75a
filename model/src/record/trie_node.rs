//! A node of a trie, see [`crate::trie`].

use bincode::{Decode, Encode};

/// Which of a node's 64 children are there, or which of a leaf's 64 numbers are in the set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct TrieNode(pub u64);
