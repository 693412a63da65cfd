//! Settings of the memory allocator.

use libc::c_int;

/// Makes all threads use one heap; call it before there is a second thread. With a heap for each thread, which is the
/// default, memory of a large change stays with the thread that allocated it: [`release_memory`] returns the end of the
/// first heap only (glibc's malloc/malloc.c, `mtrim`).
///
/// The largest pieces, such as the text of many metrics, are kept out of it, so that they are returned as soon as they are
/// freed. The allocator would put them into the heap after the first one that is freed (mallopt(3), `M_MMAP_THRESHOLD`), and
/// what is allocated behind them would keep their place from being returned. Smaller ones stay in the heap, which is not cut
/// at each of them: the kernel would have to provide the same memory anew each time, a tenth of the time of a scrape.
pub fn share_heap() {
    const LARGEST: c_int = 8 << 20;
    const FREE_AT_END: c_int = 64 << 20;
    #[cfg(target_env = "gnu")]
    for (option, value) in [
        (libc::M_ARENA_MAX, 1),
        (libc::M_MMAP_THRESHOLD, LARGEST),
        (libc::M_TRIM_THRESHOLD, FREE_AT_END),
    ] {
        // SAFETY: `mallopt` takes two numbers, and locks what it changes (glibc's malloc/malloc.c).
        unsafe {
            libc::mallopt(option, value);
        }
    }
}

/// Returns freed memory to the system: the allocator keeps what a large change used for a moment, as long as memory
/// above it is in use.
pub fn release_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: `malloc_trim` takes a number, and locks what it touches (glibc's malloc/malloc.c).
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Makes the allocator keep freed memory in one piece: a run is short, and returning memory to the kernel only to fault
/// it in again takes a third of its time.
pub fn keep_memory() {
    const LARGEST_PIECE: c_int = 32 << 20;
    const AT_ONCE: c_int = 16 << 20;
    for (option, value) in [
        (libc::M_MMAP_THRESHOLD, LARGEST_PIECE),
        (libc::M_TRIM_THRESHOLD, c_int::MAX),
        (libc::M_TOP_PAD, AT_ONCE),
    ] {
        // SAFETY: no pointers; an allocator that does not know the option returns an error and changes nothing.
        unsafe {
            libc::mallopt(option, value);
        }
    }
}
