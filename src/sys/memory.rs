//! The C library's allocator, without support for larger alignments than it provides, which nothing
//! here needs.

use std::alloc::{GlobalAlloc, Layout};
use std::ptr;

/// For `#[global_allocator]`. (std's own brings `aligned_alloc`.)
pub struct Memory;

/// malloc(3) aligns for every type of C.
const ALIGNMENT: usize = align_of::<libc::max_align_t>();

// SAFETY: each block is malloc's, of that size and, where there is one, that alignment; it is given
// back to the same.
unsafe impl GlobalAlloc for Memory {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if layout.align() > ALIGNMENT {
            return ptr::null_mut();
        }
        // SAFETY: no pointers.
        unsafe { libc::malloc(layout.size()).cast() }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if layout.align() > ALIGNMENT {
            return ptr::null_mut();
        }
        // SAFETY: no pointers. What the kernel has just given is zero already and is not touched.
        unsafe { libc::calloc(1, layout.size()).cast() }
    }

    unsafe fn dealloc(&self, block: *mut u8, _: Layout) {
        // SAFETY: the caller says that it came from here.
        unsafe { libc::free(block.cast()) }
    }

    unsafe fn realloc(&self, block: *mut u8, _: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller says that it came from here; its alignment is the usual one, or there
        // would be none.
        unsafe { libc::realloc(block.cast(), size).cast() }
    }
}
