//! After construction a front end allocates nothing: counted by the allocator itself, per thread.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use clapd_core::dsp::{Frontend, FrontendSpec};
use clapd_core::samples::Samples;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

struct Counting;

fn count() {
    // Fails only while the thread ends, when nobody counts.
    let _ = ALLOCATIONS.try_with(|n| n.set(n.get() + 1));
}

// SAFETY: every call goes to the system's allocator as it came; counting touches no memory of it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller keeps GlobalAlloc's promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: as above.
        unsafe { System.realloc(at, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn allocations() -> u64 {
    ALLOCATIONS.with(Cell::get)
}

#[test]
fn the_count_counts() {
    let before = allocations();
    drop(std::hint::black_box(vec![1_u8; 100]));
    assert!(allocations() > before);
}

#[test]
fn a_front_end_in_steady_state_allocates_nothing() {
    for (spec, rate) in
        [(FrontendSpec::clap_fused(), 48_000), (FrontendSpec::clap_fused(), 44_100), (FrontendSpec::yamnet(), 48_000)]
    {
        let mut front_end = Frontend::new(&spec, rate, spec.patch_frames + 200).unwrap();
        let block = vec![0.25_f32; rate as usize / 10];
        let mut patch = vec![0.0; spec.patch_len()];
        let before = allocations();
        let mut start = 0;
        let mut made = 0;
        for i in 0..130_u64 {
            let lost = if i == 20 { 1_000_000_000 } else { i % 3 };
            front_end.push(Samples { lost, data: &block }).unwrap();
            if i == 20 {
                start = front_end.samples() / spec.hop_length as u64 * spec.hop_length as u64;
            }
            while front_end.has_patch(start) {
                front_end.patch(start, &mut patch).unwrap();
                std::hint::black_box(front_end.lost_share(start, start + spec.patch_samples() as u64));
                start += 50 * spec.hop_length as u64;
                made += 1;
            }
        }
        assert_eq!(allocations(), before, "{rate} Hz");
        assert!(made > 0, "no patch was made");
    }
}
