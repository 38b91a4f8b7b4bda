//! The allocator of the binary. It has a crate of its own because every allocation passes through the few lines that are compiled here: they
//! are optimised where the rest of the binary, which only puts the parts together, is not.

/// Fast, and gives memory back.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;
