//! The pod sandbox's process: holds the pod's namespaces open, and as process 1 of a shared process namespace reaps orphans.
//!
//! Built by `build.rs` into a static executable of about a kilobyte: no libc, no allocator, four system calls.
#![no_std]
#![no_main]

use core::arch::{asm, global_asm};

#[cfg(target_arch = "x86_64")]
mod number {
    pub const EXIT_GROUP: usize = 231;
    pub const RT_SIGPROCMASK: usize = 14;
    pub const RT_SIGTIMEDWAIT: usize = 128;
    pub const WAIT4: usize = 61;
}

#[cfg(target_arch = "aarch64")]
mod number {
    pub const EXIT_GROUP: usize = 94;
    pub const RT_SIGPROCMASK: usize = 135;
    pub const RT_SIGTIMEDWAIT: usize = 137;
    pub const WAIT4: usize = 260;
}

const SIGINT: isize = 2;
const SIGTERM: isize = 15;
const SIGCHLD: isize = 17;
const WNOHANG: usize = 1;
const SIG_BLOCK: usize = 0;
const SIGNAL_SET_BYTES: usize = 8;

/// One system call.
///
/// # Safety
/// The arguments must be valid for the call that `number` names.
#[cfg(target_arch = "x86_64")]
unsafe fn system_call(number: usize, a: usize, b: usize, c: usize, d: usize) -> isize {
    let result: isize;
    unsafe {
        asm!("syscall", inlateout("rax") number as isize => result, in("rdi") a, in("rsi") b, in("rdx") c, in("r10") d,
            lateout("rcx") _, lateout("r11") _, options(nostack));
    }
    result
}

/// One system call.
///
/// # Safety
/// The arguments must be valid for the call that `number` names.
#[cfg(target_arch = "aarch64")]
unsafe fn system_call(number: usize, a: usize, b: usize, c: usize, d: usize) -> isize {
    let result: isize;
    unsafe {
        asm!("svc 0", in("x8") number, inlateout("x0") a as isize => result, in("x1") b, in("x2") c, in("x3") d,
            options(nostack));
    }
    result
}

#[cfg(target_arch = "x86_64")]
global_asm!(".globl _start", "_start:", "and rsp, -16", "call {run}", "ud2", run = sym run);
#[cfg(target_arch = "aarch64")]
global_asm!(".globl _start", "_start:", "bl {run}", "brk 1", run = sym run);

/// Blocks the three signals and takes them one at a time; process 1 gets no default action, so this is what makes it stoppable.
extern "C" fn run() -> ! {
    let signals: u64 = bit(SIGINT) | bit(SIGTERM) | bit(SIGCHLD);
    let set = &raw const signals as usize;
    // SAFETY: `set` points to eight bytes that outlive every call; the other arguments are null or plain numbers.
    unsafe {
        system_call(number::RT_SIGPROCMASK, SIG_BLOCK, set, 0, SIGNAL_SET_BYTES);
        loop {
            match system_call(number::RT_SIGTIMEDWAIT, set, 0, 0, SIGNAL_SET_BYTES) {
                SIGINT | SIGTERM => system_call(number::EXIT_GROUP, 0, 0, 0, 0),
                _ => reap(),
            };
        }
    }
}

const fn bit(signal: isize) -> u64 {
    1 << (signal - 1)
}

/// Collects every child that has ended.
unsafe fn reap() -> isize {
    // SAFETY: wait4 with null pointers only returns the process's number.
    while unsafe { system_call(number::WAIT4, usize::MAX, 0, WNOHANG, 0) } > 0 {}
    0
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
